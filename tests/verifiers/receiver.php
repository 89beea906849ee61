<?php

// The documented handler's verification, over captured requests; run.sh says how to run it.

declare(strict_types=1);

function verifySignature(string $payload, ?string $signature, string $secret, string $algorithm): bool
{
    if ($signature === null) {
        return false;
    }
    return hash_equals(hash_hmac($algorithm, $payload, $secret), $signature);
}

$accepted = 0;
$refused = 0;
foreach (file($argv[1]) as $line) {
    $request = json_decode($line, true, 512, JSON_THROW_ON_ERROR);
    $signature = $request['headers']['x-sapien-signature'] ?? null;
    $body = $request['body'];
    $verify = fn (string $payload) => verifySignature(
        $payload,
        $signature,
        $request['secret'],
        $request['algorithm'] ?? 'sha256',
    );

    if (!$verify($body)) {
        fwrite(STDERR, "php: refused a genuine request: $body\n");
        exit(1);
    }
    $accepted++;

    $step = max(1, intdiv(strlen($body), 500));
    for ($at = 0; $at < strlen($body); $at += $step) {
        $altered = $body;
        $altered[$at] = chr(ord($body[$at]) ^ 1);
        if ($verify($altered)) {
            fwrite(STDERR, "php: accepted a request altered at byte $at: $body\n");
            exit(1);
        }
        $refused++;
    }
}
if ($accepted === 0) {
    fwrite(STDERR, "php: the capture is empty\n");
    exit(1);
}
echo "php, the documented handler: $accepted accepted, $refused altered ones refused\n";
