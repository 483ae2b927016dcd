// Our tokenizer against Hugging Face's Rust one, where Python has it.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
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

/** Pieces that splitters disagree about, at random beside each other. */
const pieces = [
  ...[
    'a',
    'B',
    'hello',
    "'s",
    "'LL",
    "don't",
    "I'M",
    'x'.repeat(20),
    '_',
    '-',
    '!',
    '?!',
    '/',
    '//',
  ],
  ...[' ', '  ', '\n', '\r\n', '\t', '\u00a0', '\u3000', '\u2028', '\u0085', '\ufeff', '\u180e'],
  ...[
    '1',
    '23',
    '4567',
    '٠',
    'Ⅷ',
    '½',
    '\u017f',
    'é',
    'e\u0301',
    'Å',
    'ß',
    'ǅ',
    'ʰ',
    '\u200b',
    '\u0000',
  ],
  ...[
    '中',
    '文',
    '한',
    'ท',
    '😀',
    '👩‍👩',
    '\ue000',
    '▁',
    '<|im_end|>',
    '<|im_start|>',
    '<tool>',
    '</s>',
  ],
];
let state = 5;
const below = (n: number) => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) % n;
for (let i = 0; i < 400; i++)
  texts.push(Array.from({ length: 1 + below(12) }, () => pieces[below(pieces.length)]!).join(''));

const split = (pattern: string) => ({
  type: 'Sequence',
  pretokenizers: [
    { type: 'Split', pattern: { Regex: pattern }, behavior: 'Isolated', invert: false },
    { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
  ],
});
const words = String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+`;
const spaces = String.raw`\s*[\r\n]+|\s+(?!\S)|\s+`;
const [upper, lower] = [
  String.raw`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`,
  String.raw`[\p{Ll}\p{Lm}\p{Lo}\p{M}]`,
];
const start = String.raw`[^\r\n\p{L}\p{N}]?`;
const frame = { SpecialToken: { id: '<|endoftext|>', type_id: 0 } };
const tool = { content: '<tool>', single_word: false, lstrip: false, rstrip: false };

/** The steps before BPE of the families that are served, on the demo model's vocabulary. */
const families: Readonly<Record<string, (demo: Record<string, unknown>) => object>> = {
  llama3: (demo) => ({
    pre_tokenizer: split(String.raw`${words}|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|${spaces}`),
    model: { ...(demo['model'] as object), ignore_merges: true },
    post_processor: {
      type: 'TemplateProcessing',
      single: [frame, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [],
      special_tokens: {
        '<|endoftext|>': { id: '<|endoftext|>', ids: [0], tokens: ['<|endoftext|>'] },
      },
    },
  }),
  qwen: (demo) => ({
    normalizer: { type: 'NFC' },
    pre_tokenizer: split(String.raw`${words}|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|${spaces}`),
    added_tokens: [
      ...(demo['added_tokens'] as object[]),
      { ...tool, id: 8192, normalized: false, special: false },
    ],
  }),
  mistral: () => ({
    pre_tokenizer: split(
      String.raw`${start}${upper}*${lower}+|${start}${upper}+${lower}*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|${spaces}`,
    ),
  }),
  smollm: (demo) => ({
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [{ type: 'Digits', individual_digits: true }, demo['pre_tokenizer']],
    },
  }),
  digits: (demo) => ({
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [{ type: 'Digits', individual_digits: false }, demo['pre_tokenizer']],
    },
  }),
  prefixed: (demo) => ({
    pre_tokenizer: { ...(demo['pre_tokenizer'] as object), add_prefix_space: true },
  }),
};

function familyFolders(): string[] {
  const json = readFileSync(join(demoPath, 'tokenizer.json'), 'utf8');
  const demo = JSON.parse(json) as Record<string, unknown>;
  return Object.values(families).map((change) =>
    folder({ 'tokenizer.json': { ...demo, ...change(demo) } }),
  );
}

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
  const paths = [demoPath, sentencePiece, ...familyFolders()];
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
