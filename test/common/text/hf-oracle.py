# Hugging Face's own tokenizers, for hf-oracle.test.ts: cases in on stdin, answers out on stdout.
import json
import sys

from tokenizers import Tokenizer

answers = []
for case in json.load(sys.stdin):
    tokenizer = Tokenizer.from_file(case["path"])
    allowed = [tokenizer.encode(t, add_special_tokens=False).ids for t in case["texts"]]
    framed = [tokenizer.encode(t, add_special_tokens=True).ids for t in case["texts"]]
    tokenizer.encode_special_tokens = True
    text_only = [tokenizer.encode(t, add_special_tokens=False).ids for t in case["texts"]]
    answers.append(
        {
            "allowed": allowed,
            "framed": framed,
            "textOnly": text_only,
            "decoded": [tokenizer.decode(ids, skip_special_tokens=False) for ids in case["ids"]],
            "skipped": [tokenizer.decode(ids, skip_special_tokens=True) for ids in case["ids"]],
        }
    )
json.dump(answers, sys.stdout)
