// Reads the tokenizer's files in a model folder: tokenizer.json, tokenizer_config.json and the chat
// template. Every fault names its file; nothing here knows how text becomes tokens.
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { exitCodes, StartError } from '../errors.ts';

const maxFileBytes = 256 * 1024 * 1024;

export type Json = Readonly<Record<string, unknown>>;

export interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
}

export interface TokenizerFiles {
  readonly path: string;
  /** tokenizer.json, as it is. */
  readonly tokenizer: Json;
  /** tokenizer_config.json; empty when there is none. */
  readonly config: Json;
  readonly addedTokens: readonly AddedToken[];
  /** bos_token, eos_token, ... as tokenizer_config.json names them; those that are null are absent. */
  readonly namedTokens: Readonly<Record<string, string>>;
  /** The model's own chat template, null when it has none. */
  readonly chatTemplate: string | null;
}

const namedTokenKeys = ['bos', 'eos', 'unk', 'sep', 'pad', 'cls', 'mask'].map((k) => `${k}_token`);

/** Throws StartError (exit code 65) with the file that is missing or malformed. */
export function readTokenizerFiles(path: string): TokenizerFiles {
  const tokenizerPath = join(path, 'tokenizer.json');
  const tokenizer = readJson(tokenizerPath);
  if (tokenizer === null) throw bad(tokenizerPath, 'there is no such file');
  const config = readJson(join(path, 'tokenizer_config.json')) ?? {};
  const model = tokenizer['model'];
  if (typeof model !== 'object' || model === null) throw bad(tokenizerPath, 'it has no model');
  const type = (model as Json)['type'] ?? 'BPE';
  if (type !== 'BPE' && type !== 'Unigram')
    throw bad(tokenizerPath, `its model is ${JSON.stringify(type)}; BPE and Unigram are supported`);
  const namedTokens: Record<string, string> = {};
  for (const key of namedTokenKeys) {
    const content = tokenContent(config[key]);
    if (content !== null) namedTokens[key] = content;
  }
  return {
    path,
    tokenizer,
    config,
    addedTokens: readAddedTokens(tokenizer, config, namedTokens, tokenizerPath),
    namedTokens,
    chatTemplate: readText(join(path, 'chat_template.jinja')) ?? configTemplate(config),
  };
}

/** The operator's template (--chat-template). */
export function readChatTemplate(path: string): string {
  const text = readText(path);
  if (text === null) throw bad(path, 'there is no such file');
  return text;
}

/** As in Hugging Face: special is what tokenizer.json or tokenizer_config.json calls so by any name. */
function readAddedTokens(
  tokenizer: Json,
  config: Json,
  namedTokens: Readonly<Record<string, string>>,
  path: string,
): AddedToken[] {
  const list = tokenizer['added_tokens'] ?? [];
  if (!Array.isArray(list)) throw bad(path, 'added_tokens is not an array');
  const named = new Set(Object.values(namedTokens));
  const extra = config['additional_special_tokens'] ?? config['extra_special_tokens'];
  if (typeof extra === 'object' && extra !== null)
    for (const token of Object.values(extra)) {
      const content = tokenContent(token);
      if (content !== null) named.add(content);
    }
  const decoder = (config['added_tokens_decoder'] ?? {}) as Readonly<Record<string, Json>>;
  for (const token of Object.values(decoder))
    if (token['special'] === true && typeof token['content'] === 'string')
      named.add(token['content']);
  return list.map((entry: unknown) => {
    const { id, content, special } = (entry ?? {}) as Json;
    if (!Number.isInteger(id) || (id as number) < 0 || (id as number) > 0x7fffffff)
      throw bad(path, 'an added token has no valid id');
    if (typeof content !== 'string' || content === '')
      throw bad(path, `added token ${id as number} has no content`);
    return { id: id as number, content, special: special === true || named.has(content) };
  });
}

function tokenContent(token: unknown): string | null {
  if (typeof token === 'string') return token;
  if (typeof token !== 'object' || token === null) return null;
  const content = (token as Json)['content'];
  return typeof content === 'string' ? content : null;
}

/** chat_template is a template, or a list of named ones of which `default` is meant. */
function configTemplate(config: Json): string | null {
  const template = config['chat_template'];
  if (typeof template === 'string') return template;
  if (!Array.isArray(template)) return null;
  const named = template as readonly Json[];
  const found = named.find((entry) => entry['name'] === 'default')?.['template'];
  return typeof found === 'string' ? found : null;
}

function readJson(path: string): Json | null {
  const text = readText(path);
  if (text === null) return null;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw bad(path, `it is not JSON (${(error as Error).message})`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw bad(path, 'it is not a JSON object');
  return value as Json;
}

function readText(path: string): string | null {
  const size = statSync(path, { throwIfNoEntry: false })?.size;
  if (size === undefined) return null;
  if (size > maxFileBytes) throw bad(path, `it is larger than ${maxFileBytes} bytes`);
  return readFileSync(path, 'utf8');
}

export function bad(path: string, message: string): StartError {
  return new StartError(exitCodes.badModel, `${path}: ${message}`);
}
