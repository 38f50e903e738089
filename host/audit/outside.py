#!/usr/bin/env python3
"""Checks an export of an audit log without a line of Sandcast: RFC 6962 with Python's own hashes,
the signature with the system's OpenSSL (3.0 or later).

    python3 host/audit/outside.py FOLDER KEY

FOLDER holds all entries (`sandcast audit export FOLDER`); KEY is the public key as the operator
gave it, the one in force at the end. Exit code 0: the entries are what the holder of the key signed.
"""

import base64
import hashlib
import pathlib
import subprocess
import sys
import tempfile

# RFC 8410: what stands before the 32 bytes of an Ed25519 public key in DER.
PUBLIC_KEY_DER = bytes.fromhex("302a300506032b6570032100")


def root(leaves):
    """MTH of RFC 6962 section 2.1, from the hashes of the leaves."""
    subtrees = []  # (size, hash), the largest first
    for leaf in leaves:
        subtrees.append((1, leaf))
        while len(subtrees) > 1 and subtrees[-1][0] == subtrees[-2][0]:
            (size, right), (_, left) = subtrees.pop(), subtrees.pop()
            subtrees.append((2 * size, hashlib.sha256(b"\x01" + left + right).digest()))
    while len(subtrees) > 1:
        (size, right), (other, left) = subtrees.pop(), subtrees.pop()
        subtrees.append((size + other, hashlib.sha256(b"\x01" + left + right).digest()))
    return subtrees[0][1] if subtrees else hashlib.sha256().digest()


def signed_text(note, name, key):
    """The text of a signed note (https://c2sp.org/signed-note) that this key signed."""
    text, signatures = note.rsplit("\n\n", 1)
    text += "\n"
    key_hash = hashlib.sha256(name.encode() + b"\n\x01" + key).digest()[:4]
    for line in signatures.splitlines():
        dash, signer, signature = line.split(" ")
        signature = base64.b64decode(signature, validate=True)
        if (dash, signer, signature[:4]) != ("\u2014", name, key_hash):
            continue
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / "key").write_bytes(PUBLIC_KEY_DER + key)
            (folder / "text").write_text(text, encoding="utf-8")
            (folder / "signature").write_bytes(signature[4:])
            command = "openssl pkeyutl -verify -pubin -keyform DER -inkey key -rawin -in text -sigfile signature"
            subprocess.run(command.split(), cwd=folder, check=True, stdout=subprocess.DEVNULL)
        return text
    sys.exit(f"rejected: {name} did not sign the checkpoint")


def main():
    folder, verifier_key = pathlib.Path(sys.argv[1]), sys.argv[2]
    name, _, key = verifier_key.split("+", 2)
    key = base64.b64decode(key, validate=True)
    assert key[0] == 1, "an Ed25519 key is wanted"
    note = (folder / "checkpoint").read_text(encoding="utf-8")
    origin, size, signed_root = signed_text(note, name, key[1:]).splitlines()[:3]
    with open(folder / "log.jsonl", "rb") as log:
        leaves = [hashlib.sha256(b"\x00" + line.rstrip(b"\n")).digest() for line in log]
    if origin != name or len(leaves) != int(size):
        sys.exit(f"rejected: {len(leaves)} entries, and a checkpoint of {size} of {origin}")
    if base64.b64encode(root(leaves)).decode() != signed_root:
        sys.exit("rejected: the entries do not have the root that was signed")
    print(f"whole: {size} entries of {origin}, root {signed_root}")


main()
