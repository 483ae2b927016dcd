// What vLLM's command line may say here although it changes nothing, because it is so anyway: such
// a flag is taken, and the log says so. Another value of it is refused by name.
import { InvalidArgumentError } from 'commander';

export interface NoEffect {
  /** Throws InvalidArgumentError where a value asks for something else than what is; null = a switch. */
  readonly check: ((text: string) => void) | null;
  readonly why: string;
}

const value = (values: string, why: string): NoEffect => ({
  check: (text) => {
    const all = values.split(' ');
    if (all.includes(text)) return;
    throw new InvalidArgumentError(`'${text}' is not built, only ${all.join(' or ')} is.`);
  },
  why,
});
/** Whatever the limit is, what there is keeps to it. */
const limit = (why: string): NoEffect => ({
  check: (text) => {
    if (!/^\d+(\.\d+)?$/.test(text)) throw new InvalidArgumentError(`'${text}' is not a number.`);
  },
  why,
});
const on = (why: string): NoEffect => ({ check: null, why });

const parallel = value('1', 'only tensor parallelism is built');
const unlogged = on('requests are logged with --enable-log-requests only');
const isDefault = (values: string) => value(values, 'that is what is built');

/** Switches that turn off what is not built. */
const off = `--no-enable-lora --no-enable-expert-parallel --no-enable-eplb --no-enable-dbo
  --no-enable-auto-tool-choice --no-enable-prompt-embeds --no-enable-sleep-mode
  --no-trust-remote-code --no-calculate-kv-scales --no-disable-sliding-window
  --no-disable-custom-all-reduce --no-fully-sharded-loras --no-skip-tokenizer-init`.split(/\s+/);

export const noEffect: ReadonlyMap<string, NoEffect> = new Map([
  ['--pipeline-parallel-size', parallel],
  ['--data-parallel-size', parallel],
  ['--decode-context-parallel-size', parallel],
  ['--prefill-context-parallel-size', parallel],
  ['--api-server-count', value('1', 'one process serves HTTP')],
  ['--distributed-executor-backend', value('mp uni', 'every rank is a process')],
  ['--enable-chunked-prefill', on('long prompts always come in chunks')],
  ['--async-scheduling', on('the engine always runs ahead; --async-depth says how far')],
  ['--disable-cascade-attn', on('there is no cascade attention')],
  ['--trust-remote-code', on('code that comes with a model is never run')],
  ['--disable-log-requests', unlogged],
  ['--disable-uvicorn-access-log', unlogged],
  ['--enable-server-load-tracking', on('GET /load is always there')],
  ['--enable-request-id-headers', on('X-Request-Id always comes back')],
  ['--disable-fastapi-docs', on('there are no such pages')],
  ['--swap-space', limit('what is preempted is computed again')],
  ['--max-log-len', limit('neither prompts nor outputs are logged')],
  ['--cpu-offload-gb', value('0', 'nothing is offloaded')],
  ['--max-num-partial-prefills', isDefault('1')],
  ['--max-long-partial-prefills', isDefault('1')],
  ['--long-prefill-token-threshold', isDefault('0')],
  ['--prefix-caching-hash-algo', isDefault('sha256_cbor')],
  ['--logprobs-mode', isDefault('raw_logprobs')],
  ['--tokenizer-mode', isDefault('auto hf')],
  ['--config-format', isDefault('auto hf')],
  ['--model-impl', isDefault('auto')],
  ['--task', isDefault('auto generate')],
  ['--runner', isDefault('auto generate')],
  ['--convert', isDefault('auto none')],
  ['--response-role', isDefault('assistant')],
  ['--chat-template-content-format', isDefault('auto string')],
  ['--ssl-cert-reqs', isDefault('0')],
  ...off.map((name) => [name, on('what it turns off is not built')] as const),
]);
