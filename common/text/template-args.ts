// chat_template_kwargs, and fields of their own that are variables too (documents): values that a
// request hands to the chat template. They are data of bounded size (how deep they are nested, whoever
// parsed them has bounded), and cannot take the place of what the template gets from us.
import { RequestError } from '../errors.ts';
import { isMap } from '../json-object.ts';
import type { TextLimits } from '../limits.ts';

export type TemplateArgs = Readonly<Record<string, unknown>>;

/** Arguments of Hugging Face's apply_chat_template, and what every template gets. */
const reserved = new Set(
  `messages conversation tools chat_template tokenize add_generation_prompt
  continue_final_message`.split(/\s+/),
);

const kwargs = 'chat_template_kwargs';
/** Variables that are fields of their own. */
const fields = new Set(['documents', 'reasoning_effort']);

/** Throws RequestError; `isTaken` says which other names templates know. Returns every text inside. */
export function checkTemplateArgs(
  args: TemplateArgs,
  isTaken: (name: string) => boolean,
  limits: TextLimits,
): readonly string[] {
  const wrong = (rule: string) => new RequestError('bad_request', `${kwargs} ${rule}`, kwargs);
  for (const name of Object.keys(args)) {
    if (!/^[A-Za-z_]\w{0,63}$/.test(name)) throw wrong('has a name that is no variable');
    if (reserved.has(name) || isTaken(name)) throw wrong(`may not set ${name}`);
  }
  const texts: string[] = [];
  let numValues = 0;
  let numCharacters = 0;
  let param = kwargs;
  const fault = (rule: string) => new RequestError('bad_request', `${param} ${rule}`, param);
  const visit = (value: unknown): void => {
    if (++numValues > limits.templateArgs)
      throw fault(`has more than ${limits.templateArgs} values`);
    if (typeof value === 'string') {
      texts.push(value);
      numCharacters += value.length;
      if (numCharacters > limits.templateArgCharacters)
        throw fault(`has over ${limits.templateArgCharacters} characters`);
    } else if (Array.isArray(value)) {
      for (const member of value) visit(member);
    } else if (isMap(value)) {
      for (const [key, member] of Object.entries(value)) {
        visit(key);
        visit(member);
      }
    } else if (value !== null && typeof value !== 'boolean' && !Number.isFinite(value)) {
      throw fault('has a value that is not JSON');
    }
  };
  for (const [name, value] of Object.entries(args)) {
    param = fields.has(name) ? name : kwargs;
    visit(value);
  }
  return texts;
}

/** The same values with every text changed. */
export function mapTexts(value: unknown, change: (text: string) => string): unknown {
  if (typeof value === 'string') return change(value);
  if (Array.isArray(value)) return value.map((member) => mapTexts(member, change));
  if (!isMap(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, member]) => [change(key), mapTexts(member, change)]),
  );
}
