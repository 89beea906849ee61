<?php

// The handlers for PHP over vectors: say of each whether they accept it; run.sh says how to run it.

declare(strict_types=1);

require "$argv[2]/sapien.php";

function isAccepted(array $vector): bool
{
    $request = [$vector['headers'], base64_decode($vector['body']), $vector['secrets'], $vector['now']];
    try {
        return $vector['scheme'] === 'standard'
            ? refusal(...$request) === null
            : sapienRefusal(...[...$request, $vector['algorithm']]) === null;
    } catch (InvalidArgumentException) {
        return false;
    }
}

foreach (file($argv[1]) as $line) {
    $vector = json_decode($line, true, 512, JSON_THROW_ON_ERROR);
    echo $vector['name'], isAccepted($vector) ? ' accepted' : ' refused', "\n";
}
