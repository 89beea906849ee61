<?php

declare(strict_types=1);

/** The bytes that a secret of a subscription signs with. */
function keyOf(string $secret): string
{
    if (!str_starts_with($secret, 'whsec_')) {
        return $secret;
    }
    $key = base64_decode(substr($secret, strlen('whsec_')), true);
    if ($key === false || strlen($key) < 24 || strlen($key) > 64) {
        throw new InvalidArgumentException('not a whole whsec_ secret');
    }
    return $key;
}

/** Why a request is no genuine delivery, or null if it is one. Names of headers are in lower case. */
function refusal(array $headers, string $body, array $secrets, int $now): ?string
{
    $id = $headers['webhook-id'] ?? '';
    $sentAt = $headers['webhook-timestamp'] ?? '';
    if (!preg_match('/^[^.]+$/D', $id) || !preg_match('/^[0-9]{1,12}$/D', $sentAt)) {
        return 'webhook-id or webhook-timestamp is missing or unreadable';
    }
    if (abs($now - (int) $sentAt) > 300) {
        return 'signed more than 5 minutes from now';
    }
    foreach ($secrets as $secret) {
        $tag = hash_hmac('sha256', "$id.$sentAt.$body", keyOf($secret), true);
        foreach (explode(' ', $headers['webhook-signature'] ?? '') as $entry) {
            if (hash_equals('v1,' . base64_encode($tag), $entry)) {
                return null;
            }
        }
    }
    return 'no signature in webhook-signature matches';
}
