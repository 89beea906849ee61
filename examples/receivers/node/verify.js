"use strict";

const { createHmac, timingSafeEqual } = require("node:crypto");

// The bytes that a secret of a subscription signs with.
function key(secret) {
  if (!secret.startsWith("whsec_")) return Buffer.from(secret);
  const decoded = Buffer.from(secret.slice("whsec_".length), "base64");
  if (decoded.length < 24 || decoded.length > 64) throw new Error("not a whole whsec_ secret");
  return decoded;
}

// Why a request is no genuine delivery, or null if it is one. `body` is a Buffer, as it came.
function refusal(headers, body, keys, now) {
  const id = headers["webhook-id"] ?? "";
  const sentAt = headers["webhook-timestamp"] ?? "";
  const entries = (headers["webhook-signature"] ?? "").split(" ");
  if (!/^[^.]+$/.test(id) || !/^[0-9]{1,12}$/.test(sentAt)) {
    return "webhook-id or webhook-timestamp is missing or unreadable";
  }
  if (Math.abs(now - Number(sentAt)) > 300) return "signed more than 5 minutes from now";
  for (const key of keys) {
    const tag = createHmac("sha256", key).update(`${id}.${sentAt}.`).update(body).digest("base64");
    if (entries.some((entry) => isSame(entry, `v1,${tag}`))) return null;
  }
  return "no signature in webhook-signature matches";
}

function isSame(entry, genuine) {
  const [a, b] = [Buffer.from(entry), Buffer.from(genuine)];
  return a.length === b.length && timingSafeEqual(a, b);
}

module.exports = { key, refusal };
