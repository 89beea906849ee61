// A receiver: WEBHOOK_SECRETS="my-secret-123" node server.js
//
// While a secret is rotated, both stand there with a space between. Listens on 127.0.0.1, on PORT or
// 9000.
"use strict";

const { createServer } = require("node:http");
const { key, refusal } = require("./verify.js");

const keys = process.env.WEBHOOK_SECRETS.split(" ").filter(Boolean).map(key);
const [bodyMax, seenMax] = [1024 * 1024, 100_000];
const seen = new Map(); // of each id, the promise that it is accepted

// Store it and return; the work comes later. If this throws, the event comes again.
async function accept(event) {
  console.log("accepted", event.type, event.id);
}

async function receive(headers, body) {
  const why = refusal(headers, body, keys, Date.now() / 1000);
  if (why) return [401, why];
  await once(headers["webhook-id"], async () => accept(JSON.parse(body)));
  return [200, "OK"];
}

// The same event, come twice at once, is accepted once: the second one waits for the first.
function once(id, work) {
  if (!seen.has(id)) {
    const accepted = work();
    seen.set(id, accepted);
    accepted.catch(() => seen.delete(id)); // it is to be accepted when it comes again
    if (seen.size > seenMax) seen.delete(seen.keys().next().value); // the oldest
  }
  return seen.get(id);
}

const server = createServer((request, response) => {
  const parts = []; // as they came: parsed and written again, a body has other bytes
  let length = 0;
  request.on("data", (part) => {
    length += part.length;
    if (length <= bodyMax) parts.push(part);
  });
  request.on("end", async () => {
    let answer = [413, "too large"];
    try {
      if (length <= bodyMax) answer = await receive(request.headers, Buffer.concat(parts));
    } catch (error) {
      console.error(error);
      answer = [500, "failed"];
    }
    response.writeHead(answer[0]).end(answer[1]);
  });
});
server.listen(Number(process.env.PORT ?? 9000), "127.0.0.1");
