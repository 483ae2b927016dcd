// Reads the tokenizer's files in a model folder: tokenizer.json, tokenizer_config.json and the chat
// template. Every fault names its file; nothing here knows how text becomes tokens.
import { join } from 'node:path';
import { badModel, type StartError } from '../errors.ts';
import { isObject, type Json } from '../json-object.ts';
import { readModelFile, readModelJson } from '../model-file.ts';

export const maxTokenizerBytes = 256 * 1024 * 1024;

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
  readonly chatTemplate: ChatTemplateFile | null;
}

export interface ChatTemplateFile {
  /** Where the template is from. */
  readonly path: string;
  readonly source: string;
}

const namedTokenKeys = ['bos', 'eos', 'unk', 'sep', 'pad', 'cls', 'mask'].map((k) => `${k}_token`);

/** Throws StartError (exit code 65) with the file that is missing or malformed. */
export function readTokenizerFiles(path: string): TokenizerFiles {
  const tokenizerPath = join(path, 'tokenizer.json');
  const tokenizer = readModelJson(tokenizerPath, maxTokenizerBytes);
  if (tokenizer === null) throw bad(tokenizerPath, 'there is no such file');
  const config = readModelJson(join(path, 'tokenizer_config.json'), maxTokenizerBytes) ?? {};
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
    chatTemplate: readTemplate(join(path, 'chat_template.jinja')) ?? configTemplate(path, config),
  };
}

/** The operator's template (--chat-template). */
export function readChatTemplate(path: string): ChatTemplateFile {
  const template = readTemplate(path);
  if (template === null) throw bad(path, 'there is no such file');
  return template;
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
  const decoder = config['added_tokens_decoder'];
  for (const token of isObject(decoder) ? Object.values(decoder) : [])
    if (isObject(token) && token['special'] === true && typeof token['content'] === 'string')
      named.add(token['content']);
  return list.map((entry: unknown) => {
    const { id, content, special, single_word } = isObject(entry) ? entry : ({} as Json);
    if (!Number.isInteger(id) || (id as number) < 0 || (id as number) > 0x7fffffff)
      throw bad(path, 'an added token has no valid id');
    if (typeof content !== 'string' || content === '')
      throw bad(path, `added token ${id as number} has no content`);
    if (single_word === true)
      throw bad(path, `added token ${content} is single_word, which is not built yet`);
    return { id: id as number, content, special: special === true || named.has(content) };
  });
}

/** Of a token as a text, or as {content}; null for anything else. */
export function tokenContent(token: unknown): string | null {
  if (typeof token === 'string') return token;
  if (typeof token !== 'object' || token === null) return null;
  const content = (token as Json)['content'];
  return typeof content === 'string' ? content : null;
}

/** chat_template is a template, or a list of named ones of which `default` is meant. */
function configTemplate(folder: string, config: Json): ChatTemplateFile | null {
  const given = config['chat_template'];
  const named: readonly unknown[] = Array.isArray(given) ? given : [];
  const source = Array.isArray(given)
    ? named.filter(isObject).find((entry) => entry['name'] === 'default')?.['template']
    : given;
  return typeof source === 'string'
    ? { path: join(folder, 'tokenizer_config.json'), source }
    : null;
}

function readTemplate(path: string): ChatTemplateFile | null {
  const bytes = readModelFile(path, maxTokenizerBytes);
  return bytes && { path, source: bytes.toString('utf8') };
}

export function bad(path: string, message: string): StartError {
  return badModel(`${path}: ${message}`);
}
