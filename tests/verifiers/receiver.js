// npm's `standardwebhooks` over captured requests; run.sh says how to run it.
"use strict";

const { readFileSync } = require("node:fs");
const { Webhook, WebhookVerificationError } = require("standardwebhooks");

// A `whsec_` secret goes in as it is, any other one as its bytes.
function webhook(secret) {
  return secret.startsWith("whsec_")
    ? new Webhook(secret)
    : new Webhook(new TextEncoder().encode(secret), { format: "raw" });
}

function isAccepted(verifier, body, headers) {
  try {
    verifier.verify(body, headers, { jsonParse: false });
    return true;
  } catch (error) {
    if (error instanceof WebhookVerificationError) return false;
    throw error;
  }
}

// The request with one byte altered, in each way that we try.
function* altered({ headers }, body) {
  const step = Math.max(1, Math.floor(body.length / 500));
  for (let at = 0; at < body.length; at += step) {
    const other = Buffer.from(body);
    other[at] ^= 1;
    yield [other, headers];
  }
  for (const name of ["webhook-id", "webhook-timestamp"]) {
    const value = headers[name];
    const last = String.fromCharCode(value.charCodeAt(value.length - 1) ^ 1);
    yield [body, { ...headers, [name]: value.slice(0, -1) + last }];
  }
}

function fail(message) {
  console.error(`node: ${message}`);
  process.exit(1);
}

let accepted = 0;
let refused = 0;
for (const line of readFileSync(process.argv[2], "utf8").split("\n").filter(Boolean)) {
  const request = JSON.parse(line);
  const verifier = webhook(request.secret);
  const body = Buffer.from(request.body);
  if (!isAccepted(verifier, body, request.headers)) fail(`refused a genuine request: ${line}`);
  accepted += 1;
  for (const [other, headers] of altered(request, body)) {
    if (isAccepted(verifier, other, headers)) fail(`accepted an altered request: ${other}`);
    refused += 1;
  }
}
if (accepted === 0) fail("the capture is empty");
console.log(`node, standardwebhooks: ${accepted} accepted, ${refused} altered ones refused`);
