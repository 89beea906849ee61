// The handler for Node over vectors: says of each whether it accepts it; run.sh says how to run it.
"use strict";

const { readFileSync } = require("node:fs");
const { key, refusal } = require(process.argv[3]);

function isAccepted(vector) {
  let keys;
  try {
    keys = vector.secrets.map(key);
  } catch {
    return false;
  }
  return refusal(vector.headers, Buffer.from(vector.body, "base64"), keys, vector.now) === null;
}

for (const line of readFileSync(process.argv[2], "utf8").trim().split("\n")) {
  const vector = JSON.parse(line);
  if (vector.scheme === "standard") {
    console.log(vector.name, isAccepted(vector) ? "accepted" : "refused");
  }
}
