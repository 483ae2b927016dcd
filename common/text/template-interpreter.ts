// The library's interpreter with a budget, and with Python's strip, lstrip, rstrip and trim: the
// library's take no characters and know JavaScript's white space, and then Qwen3's own template,
// for one, writes other prompts than the model was trained with.
import { Interpreter, type JinjaEnvironment } from './libraries.ts';

interface Node {
  readonly type: string;
  /** CallExpression */
  readonly callee?: Node;
  readonly args?: readonly Node[];
  /** MemberExpression */
  readonly object?: Node;
  readonly property?: Node;
  readonly computed?: boolean;
  /** FilterExpression */
  readonly operand?: Node;
  readonly filter?: Node;
  /** Identifier */
  readonly value?: unknown;
}

interface Value {
  readonly type: string;
  readonly value: unknown;
}

export class TemplateInterpreter extends Interpreter {
  private left: number;
  private readonly tooMany: () => Error;

  /** Throws what `tooMany` makes once more than `steps` nodes are evaluated: no loop outlives that. */
  constructor(environment: JinjaEnvironment, steps: number, tooMany: () => Error) {
    super(environment);
    this.left = steps;
    this.tooMany = tooMany;
  }

  override evaluate(statement: unknown, environment: JinjaEnvironment): unknown {
    if (this.left-- <= 0) throw this.tooMany();
    // A slice without a border has no node there.
    const node = statement as Node | undefined;
    return (node && this.strip(node, environment)) ?? super.evaluate(statement, environment);
  }

  /** The value of `text.strip(chars)` or `text | trim(chars)`; null = the node is no such thing. */
  private strip(node: Node, environment: JinjaEnvironment): unknown {
    const found = strippedBy(node);
    if (found === null) return null;
    const text = this.evaluate(found.text, environment) as Value;
    if (text.type !== 'StringValue') return null;
    const chars = found.args[0] && (this.evaluate(found.args[0], environment) as Value).value;
    const StringValue = text.constructor as new (value: string) => Value;
    return new StringValue(
      stripText(text.value as string, found.method, typeof chars === 'string' ? chars : null),
    );
  }
}

const methods: readonly unknown[] = ['strip', 'lstrip', 'rstrip'];

function strippedBy(node: Node): { text: Node; method: string; args: readonly Node[] } | null {
  if (node.type === 'FilterExpression') {
    const { operand: text, filter } = node as Required<Node>;
    const name = filter.type === 'CallExpression' ? filter.callee : filter;
    return name?.value === 'trim' ? { text, method: 'strip', args: filter.args ?? [] } : null;
  }
  const { callee, args = [] } = node;
  if (node.type !== 'CallExpression' || callee?.type !== 'MemberExpression') return null;
  const { object: text, property, computed } = callee as Required<Node>;
  const method = property.value;
  if (computed || !methods.includes(method)) return null;
  return { text, method: method as string, args };
}

/** What str.isspace is true of. */
const space = /^[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]$/;

/** Python's str.strip, lstrip or rstrip; null chars = white space. */
export function stripText(text: string, method: string, chars: string | null): string {
  const set = chars === null ? null : new Set(chars);
  const goes = (char: string) => (set === null ? space.test(char) : set.has(char));
  let begin = 0;
  let end = text.length;
  while (method !== 'rstrip' && begin < end) {
    const char = String.fromCodePoint(text.codePointAt(begin)!);
    if (!goes(char)) break;
    begin += char.length;
  }
  while (method !== 'lstrip' && begin < end) {
    const isPair = end - begin > 1 && text.codePointAt(end - 2)! > 0xffff;
    const char = text.slice(isPair ? end - 2 : end - 1, end);
    if (!goes(char)) break;
    end -= char.length;
  }
  return text.slice(begin, end);
}
