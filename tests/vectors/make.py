#!/usr/bin/env python3
"""Makes the vectors: signed requests, genuine and not, and what a verifier must say to each.

    tests/vectors/make.py            writes the files beside it
    tests/vectors/make.py --check    says whether they are what it would write, and changes nothing

With Python's standard library and the command `openssl`, and nothing of ESL's, so that ESL's own
mistakes cannot be in them. README.md has the format.
"""

import base64
import hashlib
import hmac
import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent

SENT_AT = 1_705_329_120
ID = "evt_01HM6QTXJ0XKGH8V6V5J3W2Q9R"
BODY = b'{"id":"evt_01HM6QTXJ0XKGH8V6V5J3W2Q9R","type":"person.updated","data":{"n":1.0}}'

PLAIN = "your-webhook-secret-for-signature-verification"
# The key of the Standard Webhooks specification's examples.
WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "another-secret"
THIRD = "a-third-secret"

SIGNATURE, NEXT = "x-sapien-signature", "x-sapien-signature-next"
STANDARD = ["webhook-id", "webhook-timestamp", "webhook-signature"]


def whsec(key: bytes) -> str:
    return "whsec_" + base64.b64encode(key).decode()


def counting(length: int) -> bytes:
    return bytes(range(length))


class Openssl:
    """HMACs by the command `openssl dgst`: a key that is text by `-hmac`, bytes by `-macopt`."""

    name = "openssl"

    def tag(self, algorithm: str, key, message: bytes) -> bytes:
        if isinstance(key, str):
            key_arguments = ["-hmac", key]
        else:
            key_arguments = ["-mac", "HMAC", "-macopt", f"hexkey:{key.hex()}"]
        command = ["openssl", "dgst", f"-{algorithm}", "-binary", *key_arguments]
        return subprocess.run(command, input=message, capture_output=True, check=True).stdout


class Python:
    """HMACs by Python's `hmac`."""

    name = "python"

    def tag(self, algorithm: str, key, message: bytes) -> bytes:
        key = key.encode() if isinstance(key, str) else key
        return hmac.new(key, message, getattr(hashlib, algorithm)).digest()


class Signer:
    """Signs a delivery as docs/api.md says, with one of the two."""

    def __init__(self, maker, algorithm: str = "sha256"):
        self.maker, self.algorithm = maker, algorithm

    def sapien(self, secret: str, body: bytes) -> str:
        return self.maker.tag(self.algorithm, secret, body).hex()

    def standard(self, secret: str, body: bytes, id: str = ID, time=SENT_AT, key=None) -> str:
        message = f"{id}.{time}.".encode() + body
        tag = self.maker.tag("sha256", standard_key(secret) if key is None else key, message)
        return "v1," + base64.b64encode(tag).decode()

    def headers(self, secret: str, body: bytes, key=None) -> dict:
        """What goes with a delivery."""
        return {
            SIGNATURE: self.sapien(secret, body),
            "webhook-id": ID,
            "webhook-timestamp": str(SENT_AT),
            "webhook-signature": self.standard(secret, body, key=key),
        }


def standard_key(secret: str):
    """The text itself, or the bytes that the base64 after `whsec_` stands for."""
    if secret.startswith("whsec_"):
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    return secret


class File:
    """One file of vectors. Openssl and Python take turns in it."""

    def __init__(self, name: str, about: str):
        self.name, self.about, self.vectors = name, about, []

    def signer(self, algorithm: str = "sha256") -> Signer:
        # Each has a half of either scheme, where every other vector is for the other one.
        count = len(self.vectors)
        return Signer([Openssl(), Python()][(count + count // 2) % 2], algorithm)

    def add(self, name, scheme, secrets, headers, expected, *, now=SENT_AT, body=BODY, times=1,
            algorithm="sha256"):
        vector = {
            "name": name,
            "scheme": scheme,
            "algorithm": algorithm,
            "secrets": secrets,
            "headers": headers,
            "body": base64.b64encode(body).decode(),
            **({"body_times": times} if times != 1 else {}),
            "now": now,
            "expected": expected,
            "made_with": self.signer().maker.name,
        }
        assert all(other["name"] != name for other in self.vectors), name
        self.vectors.append(vector)

    def both(self, name, headers, expected, secrets, **options):
        """The same for either scheme. `headers` makes them with a signer."""
        for scheme in ("standard", "sapien"):
            made = headers(self.signer(options.get("algorithm", "sha256")))
            of_scheme = expected.get(scheme, expected)
            self.add(f"{name}_{scheme}", scheme, secrets, made, of_scheme, **options)

    def text(self) -> str:
        content = {"about": self.about, "vectors": self.vectors}
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def accepted(position: int = 0) -> dict:
    return {"accepted": position}


def refused(why: str, header: str | None = None) -> dict:
    return {"refused": why, **({"header": header} if header else {})}


# A mismatch is that of the header which the scheme looks at first.
MISMATCH = {
    "standard": refused("mismatch", "webhook-signature"),
    "sapien": refused("mismatch", SIGNATURE),
}


def bodies() -> File:
    file = File("bodies", "Genuine deliveries, whose bodies are easily changed on the way.")
    for name, body, times in [
        ("an_empty_body", b"", 1),
        ("one_byte", b"0", 1),
        ("an_envelope", BODY, 1),
        ("a_newline_at_the_end", BODY + b"\n", 1),
        ("carriage_return_and_newline_at_the_end", BODY + b"\r\n", 1),
        ("spaces_around", b" \t" + BODY + b"  ", 1),
        ("a_byte_order_mark_before", b"\xef\xbb\xbf" + BODY, 1),
        ("letters_beyond_ascii", '{"name":"Jörg Ångström, 東京, שלום"}'.encode(), 1),
        ("letters_not_in_normal_form", '{"name":"Jo\u0308rg","other":"J\u00f6rg"}'.encode(), 1),
        ("emoji", '{"name":"🦀 👩‍👩‍👧 🏳️‍🌈"}'.encode(), 1),
        ("line_separators", '{"text":"\u2028\u2029\u00a0"}'.encode(), 1),
        ("escapes_that_need_not_be", rb'{"path":"a\/b","o":"\u00f6","crab":"\ud83e\udd80"}', 1),
        ("a_lone_surrogate_escaped", rb'{"text":"\ud83e"}', 1),
        ("numbers_that_change_when_written_again", b'{"z":1.0,"a":1e3,"big":12345678901234567890}', 1),
        ("members_twice_and_spaced", b'{ "b" : 1 ,\t"a":2,\r\n "b":3 }', 1),
        ("dots_like_those_that_are_signed", b"evt_1.1705329120.evt_1.1705329120.", 1),
        ("looks_like_a_form", b"a=1&b=%F6+%2B", 1),
        ("with_nul", b'{"a":"\0"}\0\0', 1),
        ("every_byte", bytes(range(256)), 1),
        ("not_utf_8", b'{"name":"J\xf6rg"}', 1),
        ("utf_16", '{"name":"Jörg"}'.encode("utf-16"), 1),
        ("gzip_magic", b"\x1f\x8b\x08\x00" + bytes(16), 1),
        ("a_block_of_the_hash", b"x" * 64, 1),
        ("large_256_KiB", b"0123456789abcdef" * 64, 256),
        ("large_3_MB_of_emoji", "🦀".encode() * 250, 3000),
    ]:
        def headers(signer, whole=body * times):
            return signer.headers(WHSEC, whole)

        file.both(name, headers, accepted(), [WHSEC], body=body, times=times)
    return file


def secrets() -> File:
    file = File("secrets", "Secrets of every form, and texts that are none.")
    for name, secret in [
        ("plain_text", PLAIN),
        ("one_letter", "x"),
        ("256_letters", "0123456789abcdef" * 16),
        ("longer_than_a_block_of_the_hash", "k" * 65),
        ("spaces_and_signs", " a secret=with: spaces, & signs/+ "),
        ("letters_beyond_ascii", "Schlüssel-🔑-ключ"),
        ("base64_without_whsec", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ("whsec_in_upper_case_is_plain_text", "WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ("whsec_within_is_plain_text", "my-whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ("whsec_of_24_bytes", WHSEC),
        ("whsec_of_25_bytes_padded_twice", whsec(counting(25))),
        ("whsec_of_32_bytes", whsec(counting(32))),
        ("whsec_of_64_bytes", whsec(counting(64))),
        ("whsec_of_bytes_that_are_no_text", whsec(bytes(range(255, 223, -1)))),
        ("whsec_of_zeros", whsec(bytes(24))),
    ]:
        def headers(signer, secret=secret):
            return signer.headers(secret, BODY)

        file.both(name, headers, accepted(), [secret])

    # A `whsec_` secret is taken for what it stands for, and only by the standard scheme.
    signer = file.signer()
    as_text = {**signer.headers(WHSEC, BODY), "webhook-signature": signer.standard(WHSEC, BODY, key=WHSEC)}
    file.add("whsec_used_as_text", "standard", [WHSEC], as_text, MISMATCH["standard"])
    signer = file.signer()
    as_bytes = signer.headers(WHSEC, BODY)
    as_bytes[SIGNATURE] = signer.maker.tag("sha256", standard_key(WHSEC), BODY).hex()
    file.add("whsec_used_as_bytes", "sapien", [WHSEC], as_bytes, MISMATCH["sapien"])

    # Each is signed with what a careless reader would make of it.
    for name, secret, key in [
        ("whsec_of_23_bytes_is_none", whsec(counting(23)), counting(23)),
        ("whsec_of_65_bytes_is_none", whsec(counting(65)), counting(65)),
        # With the empty text as key, anybody could sign.
        ("whsec_of_nothing_is_none", "whsec_", ""),
        ("whsec_not_base64_is_none", "whsec_not base64", "whsec_not base64"),
        ("whsec_without_its_padding_is_none", whsec(counting(25)).rstrip("="), counting(25)),
        ("whsec_of_the_other_alphabet_is_none",
         whsec(b"\xfb\xff" * 12).replace("+", "-").replace("/", "_"), b"\xfb\xff" * 12),
        ("whsec_with_a_newline_is_none", WHSEC + "\n", standard_key(WHSEC)),
    ]:
        def headers(signer, secret=secret, key=key):
            return signer.headers(secret, BODY, key=key)

        file.both(name, headers, refused("secret"), [secret])
    return file


def algorithms() -> File:
    file = File("algorithms", "The hash of X-Sapien-Signature; that of webhook-signature is fixed.")
    all_of_them = ["sha256", "sha384", "sha512"]
    for algorithm in all_of_them:
        for name, secret in [("plain", PLAIN), ("whsec", WHSEC)]:
            def headers(signer, secret=secret):
                return signer.headers(secret, BODY)

            file.both(f"{algorithm}_{name}", headers, accepted(), [secret], algorithm=algorithm)
        for other in all_of_them:
            if other != algorithm:
                made = file.signer(other).headers(PLAIN, BODY)
                name = f"{other}_where_{algorithm}_is_demanded"
                file.add(name, "sapien", [PLAIN], made, MISMATCH["sapien"], algorithm=algorithm)
    return file


def rotation() -> File:
    file = File("rotation", "A secret on its way from the old one to the new one.")
    old, new = PLAIN, WHSEC

    def before(signer):
        return signer.headers(old, BODY)

    def during(signer):
        headers = signer.headers(old, BODY)
        headers["webhook-signature"] = f"{signer.standard(new, BODY)} {headers['webhook-signature']}"
        return {**headers, NEXT: signer.sapien(new, BODY)}

    def after(signer):
        return signer.headers(new, BODY)

    for when, headers, knows_old, knows_new in [
        ("before", before, True, False),
        ("during", during, True, True),
        ("after", after, False, True),
    ]:
        for name, texts, position in [
            ("old", [old], 0 if knows_old else None),
            ("new", [new], 0 if knows_new else None),
            ("old_and_new", [old, new], 0 if knows_old else 1),
            ("new_and_old", [new, old], 0 if knows_new else 1),
            ("another", [OTHER], None),
            ("none", [], None),
        ]:
            expected = MISMATCH if position is None else accepted(position)
            if (when, name) == ("during", "new_and_old"):
                # X-Sapien-Signature is looked at before X-Sapien-Signature-Next.
                expected = {"standard": accepted(0), "sapien": accepted(1)}
            file.both(f"{when}_with_{name}", headers, expected, texts)

    def entries(name, texts_of, expected, texts=(new,)):
        signer = file.signer()
        made = signer.headers(new, BODY)
        made["webhook-signature"] = texts_of(signer, made["webhook-signature"])
        file.add(name, "standard", list(texts), made, expected)

    entries("unknown_versions_beside", lambda _, it: f"v1a,{it[3:]} {it} v2,AAAA", accepted())
    entries("an_unknown_version_alone", lambda _, it: f"v1a,{it[3:]}",
            refused("malformed", "webhook-signature"))
    entries("no_version", lambda _, it: it[3:], refused("malformed", "webhook-signature"))
    entries("a_version_in_upper_case", lambda _, it: f"V1,{it[3:]}",
            refused("malformed", "webhook-signature"))
    entries("the_right_one_behind_two_others",
            lambda signer, it: " ".join([signer.standard(OTHER, BODY), signer.standard(THIRD, BODY), it]),
            accepted(1), [old, new])
    entries("an_entry_that_is_not_base64_beside", lambda _, it: f"v1,!! {it}", accepted())
    entries("an_entry_without_a_comma_beside", lambda _, it: f"v1 {it}", accepted())
    entries("two_spaces_between", lambda signer, it: f"{signer.standard(OTHER, BODY)}  {it}", accepted())
    entries("a_comma_between_entries", lambda signer, it: f"{signer.standard(OTHER, BODY)},{it}",
            refused("malformed", "webhook-signature"))

    def next_header(name, change, expected, texts):
        made = change(during(file.signer()))
        file.add(name, "sapien", texts, without(made, *STANDARD), expected)

    next_header("next_alone", lambda it: without(it, SIGNATURE), refused("missing", SIGNATURE), [new])
    next_header("next_unreadable_and_not_needed", lambda it: {**it, NEXT: "zz"}, accepted(), [old])
    next_header("next_unreadable_and_needed", lambda it: {**it, NEXT: "zz"},
                refused("malformed", NEXT), [new])
    next_header("next_in_upper_case", lambda it: {**it, NEXT: it[NEXT].upper()},
                refused("malformed", NEXT), [new])
    next_header("old_and_next_swapped",
                lambda it: {**it, SIGNATURE: it[NEXT], NEXT: it[SIGNATURE]}, accepted(), [old])
    return file


def time() -> File:
    file = File("time", "When a signature is good: five minutes before and after it was made.")
    for name, seconds, expected in [
        ("at_once", 0, accepted()),
        ("299_s_later", 299, accepted()),
        ("300_s_later", 300, accepted()),
        ("301_s_later", 301, refused("too_old")),
        ("a_day_later", 86_400, refused("too_old")),
        ("ten_years_later", 315_360_000, refused("too_old")),
        ("299_s_before", -299, accepted()),
        ("300_s_before", -300, accepted()),
        ("301_s_before", -301, refused("too_new")),
        ("a_day_before", -86_400, refused("too_new")),
    ]:
        def headers(signer):
            return signer.headers(PLAIN, BODY)

        file.both(name, headers, expected, [PLAIN], now=SENT_AT + seconds)

    made = without(file.signer().headers(PLAIN, BODY), *STANDARD)
    file.add("ten_years_later_by_the_documented_header_alone", "sapien", [PLAIN], made, accepted(),
             now=SENT_AT + 315_360_000)
    # The time comes before the signature: of what is old, nothing is looked at.
    made = {**file.signer().headers(PLAIN, BODY), "webhook-signature": "v1,AAAA"}
    file.add("old_and_with_a_wrong_signature", "standard", [PLAIN], made, refused("too_old"),
             now=SENT_AT + 301)
    made = {**file.signer().headers(PLAIN, BODY), "webhook-timestamp": str(SENT_AT + 301)}
    file.add("made_younger_afterwards", "standard", [PLAIN], made, MISMATCH["standard"],
             now=SENT_AT + 400)
    # Signed as it is written, so that only the reading of the number is in question.
    for name, text in [
        ("milliseconds", f"{SENT_AT}000"),
        ("a_fraction", f"{SENT_AT}.0"),
        ("a_sign", f"+{SENT_AT}"),
        ("negative", "-1"),
        ("a_space_before", f" {SENT_AT}"),
        ("an_exponent", "1.70532912e9"),
        ("hexadecimal", hex(SENT_AT)),
        ("a_date", "2024-01-15T14:32:00Z"),
        ("too_long_for_a_number", "9" * 20),
        ("empty", ""),
    ]:
        signer = file.signer()
        made = {**signer.headers(PLAIN, BODY), "webhook-timestamp": text,
                "webhook-signature": signer.standard(PLAIN, BODY, time=text)}
        file.add(f"a_timestamp_that_is_{name}", "standard", [PLAIN], made,
                 refused("malformed", "webhook-timestamp"))
    signer = file.signer()
    text = f"0{SENT_AT}"
    made = {**signer.headers(PLAIN, BODY), "webhook-timestamp": text}
    file.add("a_zero_put_before", "standard", [PLAIN], made, MISMATCH["standard"])
    made = {**file.signer().headers(PLAIN, BODY), "webhook-timestamp": "999999999999"}
    file.add("in_another_millennium", "standard", [PLAIN], made, refused("too_new"))
    return file


def tampering() -> File:
    file = File("tampering", "Deliveries that somebody has changed, and none may pass.")

    def case(name, change, expected, texts=(PLAIN,), **options):
        def headers(signer):
            return change(signer, signer.headers(PLAIN, BODY))

        file.both(name, headers, expected, list(texts), **options)

    def unchanged(_, it):
        return it

    case("a_wrong_secret", unchanged, MISMATCH, [OTHER])
    case("several_wrong_secrets", unchanged, MISMATCH, [OTHER, THIRD, WHSEC])
    case("a_secret_with_a_space_at_its_end", unchanged, MISMATCH, [PLAIN + " "])
    for name, body in [
        ("a_changed_byte", BODY.replace(b"1.0", b"9.0")),
        ("a_number_written_again", BODY.replace(b"1.0", b"1")),
        ("spaces_added_by_parsing", BODY.replace(b":", b": ").replace(b",", b", ")),
        ("a_newline_added", BODY + b"\n"),
        ("a_byte_order_mark_added", b"\xef\xbb\xbf" + BODY),
        ("the_last_byte_missing", BODY[:-1]),
        ("no_body", b""),
        ("the_body_twice", BODY * 2),
    ]:
        case(name, unchanged, MISMATCH, body=body)

    standard_mismatch = refused("mismatch", "webhook-signature")
    case("another_id", lambda _, it: {**it, "webhook-id": "evt_2"}, standard_mismatch)
    case("another_time", lambda _, it: {**it, "webhook-timestamp": str(SENT_AT + 1)}, standard_mismatch)
    case("an_empty_id", lambda _, it: {**it, "webhook-id": ""}, refused("malformed", "webhook-id"))
    case("a_dot_in_the_id",
         lambda signer, it: {**it, "webhook-id": "evt_1.2",
                             "webhook-signature": signer.standard(PLAIN, BODY, id="evt_1.2")},
         refused("malformed", "webhook-id"))

    # The beginning of the body made a part of id or time: the bytes that are signed stay the same.
    signer = file.signer()
    body = f"{SENT_AT}.".encode() + BODY
    made = {**signer.headers(PLAIN, body), "webhook-id": f"{ID}.{SENT_AT}",
            "webhook-signature": signer.standard(PLAIN, body)}
    file.add("the_border_between_id_and_body_moved", "standard", [PLAIN], made,
             refused("malformed", "webhook-id"), body=BODY)

    for header in STANDARD:
        case(f"without_{header}", lambda _, it, name=header: without(it, name),
             refused("missing", header))
    case("without_any_standard_header", lambda _, it: without(it, *STANDARD),
         {"standard": refused("missing", "webhook-id"), "sapien": accepted()})
    case("without_the_documented_header", lambda _, it: without(it, SIGNATURE),
         {"standard": accepted(), "sapien": refused("missing", SIGNATURE)})
    case("without_any_header", lambda *_: {},
         {"standard": refused("missing", "webhook-id"), "sapien": refused("missing", SIGNATURE)})

    for name, change, why in [
        ("an_empty_signature", lambda it: "", "malformed"),
        ("a_signature_of_v1_alone", lambda it: "v1,", "malformed"),
        ("a_signature_without_its_padding", lambda it: it.rstrip("="), "malformed"),
        ("half_a_signature", lambda it: it[:25] + "=", "malformed"),
        ("a_signature_in_hex", lambda it: "v1," + base64.b64decode(it[3:]).hex(), "malformed"),
        ("a_signature_of_zeros", lambda it: "v1," + base64.b64encode(bytes(32)).decode(), "mismatch"),
        ("a_changed_signature", flipped, "mismatch"),
    ]:
        case(name, lambda _, it, change=change: {**it, "webhook-signature": change(it["webhook-signature"])},
             refused(why, "webhook-signature"))

    for name, change, why in [
        ("empty", lambda it: "", "malformed"),
        ("in_upper_case", str.upper, "malformed"),
        ("with_the_name_of_the_hash", lambda it: f"sha256={it}", "malformed"),
        ("in_base64", lambda it: base64.b64encode(bytes.fromhex(it)).decode(), "malformed"),
        ("of_an_odd_length", lambda it: it[:63], "malformed"),
        ("with_a_space_before", lambda it: f" {it}", "malformed"),
        ("truncated", lambda it: it[:62], "mismatch"),
        ("truncated_to_one_byte", lambda it: it[:2], "mismatch"),
        ("twice", lambda it: it * 2, "mismatch"),
        ("of_zeros", lambda it: "00" * 32, "mismatch"),
        ("changed", lambda it: f"{it[:-1]}{int(it[-1], 16) ^ 1:x}", "mismatch"),
    ]:
        made = file.signer().headers(PLAIN, BODY)
        made[SIGNATURE] = change(made[SIGNATURE])
        file.add(f"the_documented_signature_{name}", "sapien", [PLAIN], made, refused(why, SIGNATURE))
    return file


def flipped(signature: str) -> str:
    tag = bytearray(base64.b64decode(signature[3:]))
    tag[-1] ^= 1
    return "v1," + base64.b64encode(tag).decode()


def without(headers: dict, *names: str) -> dict:
    return {name: value for name, value in headers.items() if name not in names}


def main():
    is_check = sys.argv[1:] == ["--check"]
    count, different = 0, []
    for file in [bodies(), secrets(), algorithms(), rotation(), time(), tampering()]:
        path = HERE / f"{file.name}.json"
        text = file.text().encode()
        count += len(file.vectors)
        if is_check:
            if not path.is_file() or path.read_bytes() != text:
                different.append(path.name)
        else:
            path.write_bytes(text)
    if different:
        sys.exit(f"not what make.py makes: {', '.join(different)}")
    print(f"vectors: {count}, {'as made' if is_check else 'written'}")


if __name__ == "__main__":
    main()
