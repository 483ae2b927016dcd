// The id of the token that the tokenizer calls the end of a text (eos_token). It ends a request as
// the model's own do: tuned models at times name it there alone. Reads no more than it must, for
// tokenizer.json may be large.
import { join } from 'node:path';
import { isObject, type Json } from '../json-object.ts';
import { readModelJson } from '../model-file.ts';
import { maxTokenizerBytes, tokenContent } from './tokenizer-files.ts';

/** null where the tokenizer names none, or one that it does not have. Throws StartError. */
export function tokenizerEosId(folder: string): number | null {
  const config = readModelJson(join(folder, 'tokenizer_config.json'), maxTokenizerBytes);
  const content = config && tokenContent(config['eos_token']);
  if (!config || !content) return null;
  return idInDecoder(config, content) ?? idInTokenizer(folder, content);
}

/** added_tokens_decoder: {"2": {"content": "</s>", ...}, ...} */
function idInDecoder({ added_tokens_decoder: decoder }: Json, content: string): number | null {
  const entries = isObject(decoder) ? Object.entries(decoder) : [];
  const found = entries.find(([, token]) => tokenContent(token) === content);
  return found ? asId(Number(found[0])) : null;
}

function idInTokenizer(folder: string, content: string): number | null {
  const tokenizer = readModelJson(join(folder, 'tokenizer.json'), maxTokenizerBytes) ?? {};
  const { added_tokens: added, model } = tokenizer;
  const tokens: readonly unknown[] = Array.isArray(added) ? added : [];
  const found = tokens.filter(isObject).find((token) => token['content'] === content);
  if (found) return asId(found['id']);
  const vocab = isObject(model) ? model['vocab'] : null;
  return isObject(vocab) && Object.hasOwn(vocab, content) ? asId(vocab[content]) : null;
}

const asId = (id: unknown) => (Number.isInteger(id) && (id as number) >= 0 ? (id as number) : null);
