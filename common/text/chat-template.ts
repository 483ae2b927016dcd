// Conversations to text, by the model's Jinja template or the operator's (never a request's). The
// template is parsed once. A rendering has a budget of steps and of output, and what users wrote
// cannot become a special token: it is broken up before the template sees it (special-guard.ts).
import { RequestError } from '../errors.ts';
import { defaultTextLimits, type TextLimits } from '../limits.ts';
import { Environment, Template } from './libraries.ts';
import { checkTemplateArgs, mapTexts, type TemplateArgs } from './template-args.ts';
import { TemplateInterpreter } from './template-interpreter.ts';
import { bad } from './tokenizer-files.ts';
import { toWellFormed, type Tokenizer } from './tokenizer.ts';

export interface ChatMessage {
  readonly role: string;
  readonly content: string;
  /** Who of this role it is; most templates do not show it. */
  readonly name?: string;
}

export interface ChatTemplateOptions {
  readonly addGenerationPrompt: boolean;
  /** The last message is left open, so that the model goes on with it. */
  readonly continueFinalMessage: boolean;
  /** The model's own frame (BOS, at times EOS) around what the template gives; it rarely wants one. */
  readonly addSpecialTokens?: boolean;
  /** Variables for the template beside ours. */
  readonly templateArgs?: TemplateArgs;
}

export interface RenderedChat {
  readonly text: string;
  readonly tokenIds: Int32Array;
}

const maxStepsPerMessage = 2_000;
/** Marks where the final message ends; the trailing space shows whether the template trims. */
const continueMark = 'CONTINUE_FINAL_MESSAGE_TAG ';

export class ChatTemplate {
  private readonly tokenizer: Tokenizer;
  private readonly source: string;
  private readonly limits: TextLimits;
  private readonly globals: Readonly<Record<string, unknown>>;
  private readonly program: unknown;

  /** Throws StartError when the template does not parse; `origin` names the file. */
  constructor(tokenizer: Tokenizer, source: string, origin: string, limits = defaultTextLimits) {
    this.tokenizer = tokenizer;
    this.source = source;
    this.limits = limits;
    this.globals = makeGlobals(limits.templateSteps);
    try {
      this.program = new Template(source).parsed;
    } catch (error) {
      // The parser reads past the last token of a template that is cut off.
      const why = error instanceof TypeError ? 'it ends too early' : (error as Error).message;
      throw bad(origin, `the chat template does not parse (${why})`);
    }
  }

  /** Whether the template has this name in it at all. */
  uses(name: string): boolean {
    return new RegExp(`\\b${name}\\b`).test(this.source);
  }

  /** Throws RequestError: what the template refuses (raise_exception), or a budget is used up. */
  render(messages: readonly ChatMessage[], options: ChatTemplateOptions): RenderedChat {
    const { guard } = this.tokenizer;
    if (messages.length === 0) throw fault('there is no message');
    if (options.addGenerationPrompt && options.continueFinalMessage)
      throw fault('add_generation_prompt and continue_final_message exclude each other');
    let clean = messages.map((message) => mapMessage(message, toWellFormed));
    const { namedTokens } = this.tokenizer.files;
    const isTaken = (name: string) => Object.hasOwn(this.globals, name) || name in namedTokens;
    const given = mapTexts(options.templateArgs ?? {}, toWellFormed) as TemplateArgs;
    let args = given;
    const texts = [
      ...clean.flatMap(({ role, content, name = '' }) => [role, content, name]),
      ...checkTemplateArgs(given, isTaken, this.limits),
    ];
    for (const text of texts) this.tokenizer.checkLength(text);
    let breaker = '';
    if (texts.some((text) => guard.has(text))) {
      breaker = guard.chooseBreaker([this.source, ...texts]);
      clean = clean.map((message) => mapMessage(message, (text) => guard.breakUp(text, breaker)));
      args = mapTexts(given, (text) => guard.breakUp(text, breaker)) as TemplateArgs;
    }
    const rendered = options.continueFinalMessage
      ? this.renderOpen(clean, args)
      : this.run(clean, options.addGenerationPrompt, args);
    return {
      text: breaker === '' ? rendered : rendered.replaceAll(breaker, ''),
      tokenIds: this.tokenizer.encodeRendered(rendered, breaker, options.addSpecialTokens ?? false),
    };
  }

  /** Renders with the end of the final message marked, and cuts there. */
  private renderOpen(messages: readonly ChatMessage[], args: TemplateArgs): string {
    const last = messages.at(-1)!;
    const marked = [...messages.slice(0, -1), { ...last, content: last.content + continueMark }];
    const rendered = this.run(marked, false, args);
    const at = rendered.lastIndexOf(continueMark.trim());
    if (at < 0 || !rendered.includes(last.content.trim()))
      throw fault('the chat template does not show the final message as it is, it cannot go on');
    return rendered.startsWith(continueMark, at)
      ? rendered.slice(0, at)
      : rendered.slice(0, at).trimEnd();
  }

  private run(
    messages: readonly ChatMessage[],
    addGenerationPrompt: boolean,
    args: TemplateArgs,
  ): string {
    const environment = new Environment();
    const variables = {
      ...args,
      ...this.globals,
      ...this.tokenizer.files.namedTokens,
      messages,
      add_generation_prompt: addGenerationPrompt,
    };
    for (const [name, value] of Object.entries(variables)) environment.set(name, value);
    const interpreter = new TemplateInterpreter(
      environment,
      this.limits.templateSteps + maxStepsPerMessage * messages.length,
      () => fault('the chat template takes too many steps'),
    );
    let text: string;
    try {
      text = String(interpreter.run(this.program).value);
    } catch (error) {
      if (error instanceof RequestError) throw error;
      throw fault(`the chat template refuses the messages: ${(error as Error).message}`);
    }
    const { templateCharacters } = this.limits;
    if (text.length > templateCharacters)
      throw fault(`the rendered messages are longer than ${templateCharacters} characters`);
    return text;
  }
}

function mapMessage(
  { role, content, name }: ChatMessage,
  map: (text: string) => string,
): ChatMessage {
  return { role: map(role), content: map(content), ...(name !== undefined && { name: map(name) }) };
}

/** What every template may use besides the variables; the same as Hugging Face gives. */
const makeGlobals = (maxSteps: number): Readonly<Record<string, unknown>> => ({
  true: true,
  false: false,
  none: null,
  True: true,
  False: false,
  None: null,
  raise_exception: (message: unknown) => {
    throw fault(String(message));
  },
  range: (start: number, stop?: number, step = 1) => {
    const [from, to] = stop === undefined ? [0, start] : [start, stop];
    const length = Math.ceil((to - from) / step);
    if (!(length <= maxSteps)) throw fault(`the chat template loops more than ${maxSteps} times`);
    return Array.from({ length: Math.max(0, length) }, (_, i) => from + i * step);
  },
  strftime_now: (format: string) => formatTime(new Date(), format),
});

const months =
  'January February March April May June July August September October November December';
const days = 'Sunday Monday Tuesday Wednesday Thursday Friday Saturday';

function formatTime(now: Date, format: string): string {
  const two = (n: number) => String(n).padStart(2, '0');
  const month = months.split(' ')[now.getMonth()]!;
  const day = days.split(' ')[now.getDay()]!;
  const parts: Readonly<Record<string, string>> = {
    Y: String(now.getFullYear()),
    m: two(now.getMonth() + 1),
    d: two(now.getDate()),
    B: month,
    b: month.slice(0, 3),
    A: day,
    a: day.slice(0, 3),
    H: two(now.getHours()),
    I: two(now.getHours() % 12 || 12),
    M: two(now.getMinutes()),
    S: two(now.getSeconds()),
    p: now.getHours() < 12 ? 'AM' : 'PM',
    '%': '%',
  };
  return format.replace(/%-?([A-Za-z%])/g, (whole: string, letter: string) => {
    const part = parts[letter] ?? whole;
    return whole.startsWith('%-') ? part.replace(/^0(?=.)/, '') : part;
  });
}

function fault(message: string): RequestError {
  return new RequestError('bad_request', message, 'messages');
}
