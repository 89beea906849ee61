<?php

declare(strict_types=1);

require_once __DIR__ . '/verify.php';

/**
 * As refusal(), for receivers that go by X-Sapien-Signature: it covers the body alone, so that who has
 * recorded a request can send it again at any time. Standard headers that are there must be right, too.
 */
function sapienRefusal(
    array $headers,
    string $body,
    array $secrets,
    int $now,
    string $algorithm = 'sha256',
): ?string {
    $signatures = [$headers['x-sapien-signature'] ?? '', $headers['x-sapien-signature-next'] ?? ''];
    $matches = false;
    foreach ($secrets as $secret) {
        $genuine = hash_hmac($algorithm, $body, $secret);
        foreach ($signatures as $signature) {
            $matches = $matches || hash_equals($genuine, $signature);
        }
    }
    if (!$matches || $signatures[0] === '') {
        return 'X-Sapien-Signature does not match';
    }
    $names = ['webhook-id', 'webhook-timestamp', 'webhook-signature'];
    $hasStandard = array_intersect($names, array_keys($headers)) !== [];
    return $hasStandard ? refusal($headers, $body, $secrets, $now) : null;
}
