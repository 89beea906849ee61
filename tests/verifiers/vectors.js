// npm's `standardwebhooks` over the vectors; run.sh says how to run it.
//
//     vectors.js FOLDER      the folder with the vectors
"use strict";

const { readFileSync, readdirSync } = require("node:fs");
const { basename, join } = require("node:path");
const { Webhook } = require("standardwebhooks");

// A `whsec_` secret goes in as it is, any other one as its bytes.
function webhook(secret) {
  return secret.startsWith("whsec_")
    ? new Webhook(secret)
    : new Webhook(new TextEncoder().encode(secret), { format: "raw" });
}

function isAccepted(vector) {
  // A clock that stands still where the vector wants it.
  Date.now = () => vector.now * 1000;
  const once = Buffer.from(vector.body, "base64");
  const body = Buffer.concat(Array(vector.body_times ?? 1).fill(once));
  return vector.secrets.some((secret) => {
    try {
      webhook(secret).verify(body, vector.headers, { jsonParse: false });
      return true;
    } catch {
      // It throws more than its own error for what it cannot read. Whatever it is, a handler fails.
      return false;
    }
  });
}

const folder = process.argv[2];
const read = (name) => JSON.parse(readFileSync(join(folder, name), "utf8"));
const exceptions = Object.keys(read("exceptions.json").npm).sort();
const differing = [];
let accepted = 0;
let refused = 0;
for (const name of readdirSync(folder).filter((name) => name.endsWith(".json"))) {
  if (name === "exceptions.json") continue;
  for (const vector of read(name).vectors) {
    if (vector.scheme !== "standard") continue;
    const isGenuine = isAccepted(vector);
    if (isGenuine !== "accepted" in vector.expected) {
      differing.push(`${basename(name, ".json")}/${vector.name}`);
    }
    isGenuine ? (accepted += 1) : (refused += 1);
  }
}
if (differing.sort().join() !== exceptions.join()) {
  console.error("node: differs in", differing, "but exceptions.json has", exceptions);
  process.exit(1);
}
if (accepted === 0) throw new Error("there are no vectors");
console.log(
  `node, standardwebhooks: ${accepted} vectors accepted, ${refused} refused, ` +
    `${differing.length} of them unlike us, as is written down`,
);
