// Our tokenizer against Hugging Face's Rust one, where Python has it.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { Tokenizer } from '../../../common/text/tokenizer.ts';
import { demoPath, folder, sentencePieceTokenizer } from './support.ts';

const script = fileURLToPath(new URL('../../../../test/common/text/hf-oracle.py', import.meta.url));
const python = spawnSync('python3', ['-c', 'import tokenizers']);
const extra = process.env['VLLM_TS_TEST_MODELS'];
const smol = extra === undefined ? null : join(extra, 'smollm2-135m-instruct');

const texts = [
  '',
  'Hello, world!',
  ' leading and trailing ',
  'two  spaces   three\n\n\nlines\t\ttabs\r\n',
  "it's we'll they've I'd you're can't",
  '1234567890 3.14159 1,000,000',
  'naïve café œuvre Ünïcödé',
  '中文字符和日本語テキストと한국어',
  'مرحبا بالعالم — שלום',
  'ไทยและ हिन्दी',
  '👩‍👩‍👧 🏳️‍🌈 🇩🇪 😀😀',
  '\u0000\u0001\u007f\u0085\u00a0\u2028\u2029\ufeff',
  'e\u0301 A\u030a \u1e9b\u0323',
  'a'.repeat(300),
  ' '.repeat(100),
  'function f(x) { return x ?? `${y}`; } // <|comment|>',
  '<|im_start|>user\nhi<|im_end|>',
  '<|im_end|><|im_end|>x<|im_end|',
  'a <|endoftext|> b </s> <s>c<s> <unk>',
  '__proto__ constructor <0x41> ▁under ▁',
  String.fromCodePoint(...Array.from({ length: 200 }, (_, i) => i + 0x20)),
];

interface Answer {
  readonly allowed: number[][];
  readonly framed: number[][];
  readonly textOnly: number[][];
  readonly decoded: string[];
  readonly skipped: string[];
}

const skip = python.status === 0 ? {} : { skip: 'python3 with the package tokenizers is not here' };

t.test('Tokenizer agrees with Hugging Face’s tokenizers', skip, (t) => {
  const sentencePiece = folder({ 'tokenizer.json': sentencePieceTokenizer() });
  const paths = [demoPath, sentencePiece];
  if (smol !== null && existsSync(smol)) paths.push(smol);
  const cases = paths.map((path) => {
    const tokenizer = Tokenizer.load(path, 100_000);
    const encode = (text: string, allowSpecial: boolean, addSpecialTokens = false) => [
      ...tokenizer.encode(text, { addSpecialTokens, allowSpecial }),
    ];
    const ids = texts.map((text) => encode(text, true, true));
    // Any ids, ill-formed UTF-8 too. (Byte fallback there differs by design: see utf8-decoder.ts.)
    if (path !== sentencePiece)
      for (let i = 0; i < 200; i++)
        ids.push(
          Array.from({ length: 12 }, (_, k) => (i * 7919 + k * k * 104_729) % tokenizer.vocabSize),
        );
    return { path, tokenizer, encode, ids };
  });
  const input = cases.map(({ path, ids }) => ({ path: join(path, 'tokenizer.json'), texts, ids }));
  const run = spawnSync('python3', [script], {
    input: JSON.stringify(input),
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  if (run.status !== 0) throw new Error(run.stderr);
  const answers = JSON.parse(run.stdout) as Answer[];
  cases.forEach(({ tokenizer, encode, ids, path }, i) => {
    const answer = answers[i]!;
    texts.forEach((text, k) => {
      const name = `text ${k} of ${path}`;
      t.same(encode(text, true), answer.allowed[k], name);
      t.same(encode(text, true, true), answer.framed[k], `${name} framed`);
      t.same(encode(text, false), answer.textOnly[k], `${name} as text`);
    });
    ids.forEach((list, k) => {
      const all = tokenizer.decode(list, { skipSpecialTokens: false });
      const skipped = tokenizer.decode(list, { skipSpecialTokens: true });
      if (all !== answer.decoded[k] || skipped !== answer.skipped[k])
        t.same([all, skipped], [answer.decoded[k], answer.skipped[k]], `${path}: ${list.join()}`);
    });
  });
  t.end();
});
