<?php

declare(strict_types=1);

/** The data of an event that was verified, also where it was too large to come with it. */
function dataOf(array $event): array
{
    if (!isset($event['data_ref'])) {
        return $event['data'];
    }
    $reference = $event['data_ref'];
    if (!preg_match('~^https?://~', $reference['uri'])) { // a file would be read, too
        throw new RuntimeException("the data of {$event['id']} is at no address of the web");
    }
    $size = $reference['size_bytes'];
    $content = file_get_contents($reference['uri'], false, null, 0, $size + 1);
    if ($content === false) {
        throw new RuntimeException("the data of {$event['id']} cannot be fetched");
    }
    $checksum = 'sha256:' . hash('sha256', $content);
    if (strlen($content) !== $size || $checksum !== $reference['checksum']) {
        throw new RuntimeException("the data of {$event['id']} is not what was published");
    }
    return json_decode($content, true, 512, JSON_THROW_ON_ERROR);
}
