<?php

// A receiver: WEBHOOK_SECRETS="my-secret-123" php -S 127.0.0.1:9000 index.php
//
// While a secret is rotated, both stand there with a space between.

declare(strict_types=1);

require_once __DIR__ . '/verify.php';

/** Stores it and returns; the work comes later. If this throws, the event comes again. */
function accept(array $event): void
{
    file_put_contents('php://stdout', "accepted {$event['type']} {$event['id']}\n");
}

http_response_code(500); // until it is done: where errors are displayed, PHP answers them with 200
$body = file_get_contents('php://input'); // as it came: parsed and written again, it has other bytes
$headers = array_change_key_case(getallheaders());
$secrets = explode(' ', (string) getenv('WEBHOOK_SECRETS'));
$why = refusal($headers, $body, array_filter($secrets, strlen(...)), time());
if ($why !== null) {
    http_response_code(401);
    exit($why);
}

$event = json_decode($body, true, 512, JSON_THROW_ON_ERROR);

// What was seen stands in a file of its own, since nothing of this process is left for the next request.
// Where you have a database, a row with a unique key is better: in the transaction that stores the event.
$folder = getenv('WEBHOOK_SEEN') ?: sys_get_temp_dir() . '/webhooks-seen';
is_dir($folder) || mkdir($folder, 0700) || is_dir($folder);
$seen = fopen($folder . '/' . hash('sha256', $event['id']), 'c+');
flock($seen, LOCK_EX); // the same event, come twice at once, is accepted once
if (fgetc($seen) === false) {
    accept($event);
    fwrite($seen, '1');
}
http_response_code(200);
echo 'OK';
