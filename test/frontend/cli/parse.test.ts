import t from 'tap';
import { StartError } from '../../../common/errors.ts';
import { flags } from '../../../frontend/cli/flags.ts';
import { noEffect } from '../../../frontend/cli/no-effect.ts';
import { notBuilt, saidOtherwise } from '../../../frontend/cli/not-built.ts';
import { parseCommandLine } from '../../../frontend/cli/parse.ts';
import { nearest } from '../../../frontend/cli/values.ts';

const parse = (...argv: string[]) => parseCommandLine(['serve', ...argv], '0.0.0')!;

t.test('parseCommandLine has vLLM defaults', (t) => {
  const { model, flags } = parse();
  t.equal(model, null);
  t.match(flags, {
    port: 8000,
    host: null,
    dtype: 'auto',
    seed: 0,
    blockSize: 16,
    maxNumSeqs: null,
    maxNumBatchedTokens: null,
    maxLogprobs: 20,
    enablePrefixCaching: true,
    schedulingPolicy: 'fcfs',
    apiKey: [],
  });
  t.ok(Object.isFrozen(flags));
  t.end();
});

t.test('parseCommandLine takes -tp as vLLM does', (t) => {
  for (const argv of [['-tp', '4'], ['-tp=4'], ['--tensor_parallel_size', '4']])
    t.equal(parse(...argv).flags.tensorParallelSize, 4);
  t.end();
});

t.test('parseCommandLine takes what asks for nothing, and says so', (t) => {
  const ones = ['-pp', '1', '-dp=1', '--decode_context_parallel_size', '1', '-pcp', '1'];
  const switches = ['--enable_chunked_prefill', '--trust-remote-code', '--no-enable-lora'];
  const { model, remarks } = parse(...ones, ...switches, 'm');
  t.equal(model, 'm');
  t.same(
    remarks.map((remark) => remark.replace(/ changes nothing here: .+$/, '')),
    [
      '--pipeline-parallel-size',
      '--data-parallel-size',
      '--decode-context-parallel-size',
      '--prefill-context-parallel-size',
      '--enable-chunked-prefill',
      '--trust-remote-code',
      '--no-enable-lora',
    ],
  );
  const limits = parse('--swap-space', '4', '--max-log-len=100').remarks;
  t.match(limits, [
    /^--swap-space changes nothing here: /,
    /^--max-log-len changes nothing here: /,
  ]);
  t.same(parse('-n', '1', '-r=0', '--no-enable-log-requests').remarks, [], 'these have an effect');
  for (const host of ['10.0.0.1', '::1', '[fe80::1%eth0]', 'node-0.a_b.svc', 'localhost'])
    t.equal(parse('-n=1', '--master-addr', host).flags.masterAddr, host);
  t.end();
});

t.test('flags are built, not built, without effect or said otherwise', (t) => {
  const built = Object.values(flags).map(({ name }) => name);
  const names = [...built, ...notBuilt, ...noEffect.keys(), ...saidOtherwise.keys()];
  t.equal(new Set(names).size, names.length);
  t.end();
});

t.test('parseCommandLine reads every form that vLLM reads', (t) => {
  const read = parse(
    'm',
    '--max_model_len=2K',
    '--no-enable-prefix-caching',
    '--api-key',
    'a',
    'b',
  );
  t.equal(read.model, 'm');
  t.equal(read.flags.maxModelLen, 2048);
  t.equal(read.flags.enablePrefixCaching, false);
  t.same(read.flags.apiKey, ['a', 'b']);
  t.equal(parse('--max-num-batched-tokens', '25.6k').flags.maxNumBatchedTokens, 25_600);
  t.equal(parse('--gpu-memory-utilization', '.5').flags.gpuMemoryUtilization, 0.5);
  t.equal(parse('--kv-cache-memory-bytes', '2G').flags.kvCacheMemoryBytes, 2 * 2 ** 30);
  t.equal(parse('--port', '1', '--port', '2').flags.port, 2, 'the last one wins');
  t.same(parse('--served-model-name', 'a', '--served-model-name', 'b').flags.servedModelName, [
    'a',
    'b',
  ]);
  t.same(parse('--allowed-origins', '["*"]').flags.allowedOrigins, ['*']);
  t.same(parse().flags.apiKey, [], 'an earlier command line leaves nothing behind');
  t.end();
});

const bad: readonly (readonly [argv: string[], message: RegExp])[] = [
  [['--prot', '1'], /^unknown flag --prot. Did you mean --port\?$/],
  [['--maxmodel-len', '1'], /--maxmodel-len. Did you mean --max-model-len\?/],
  [['--qqqqqqqq'], /^unknown flag --qqqqqqqq$/],
  [['--port', 'x'], /^--port: 'x' is not a whole number/],
  [['--port', '65536'], /^--port: 65536 is outside 0 to 65535/],
  [['--max-model-len', '1.5K'], /^--max-model-len: '1.5K' is not a whole number/],
  [['--max-model-len', 'most'], /^--max-model-len: 'most'/],
  [['--dtype', 'floot16'], /^--dtype: 'floot16' is not one of .* Did you mean float16\?/],
  [['--dtype', 'bf16'], /^--dtype: 'bf16' is not one of .* Did you mean bfloat16\?/],
  [['--device', 'GPU'], /^--device: 'GPU' is not one of .* Did you mean cuda\?/],
  [['--port'], /^--port: its value is missing/],
  [['--no-port'], /^unknown flag --no-port/],
  [['--strict-api=true'], /^--strict-api: it takes no value$/],
  [['--no-enable-prefix-caching=1'], /^--no-enable-prefix-caching: it takes no value$/],
  [['--api-key', ''], /^--api-key: its value is empty/],
  [['--served-model-name', 'a', ''], /^--served-model-name: its value is empty/],
  [['--tokenizer='], /^--tokenizer: its value is empty/],
  [['--gpu-memory-utilization', '92'], /^--gpu-memory-utilization: '92' is not above 0/],
  [['--gpu-memory-utilization', '0'], /^--gpu-memory-utilization: '0' is not above 0/],
  [['--async-depth', '9'], /^--async-depth: 9 is outside 1 to 8/],
  [['--shutdown-timeout', '-1'], /^--shutdown-timeout: '-1' is not a number of seconds/],
  [['--step-timeout', '0'], /^--step-timeout: this must be at least 0.001/],
  [['--collective-timeout', '0.0'], /^--collective-timeout: this must be at least 0.001/],
  [['--scheduling-policy', 'prio'], /Did you mean priority\?/],
  [['--model', 'a'], /^--model: MODEL has no flag: vllm-ts serve MODEL$/],
  [['--no-enable-chunked-prefill'], /^--no-enable-chunked-prefill: vllm-ts does not have this/],
  [['--no-async-scheduling'], /here it is --async-depth 1$/],
  [['--allowed-origins', '*'], /^--allowed-origins: a JSON list of texts is expected, such as/],
  [['--allowed-origins', '"*"'], /^--allowed-origins: a JSON list of texts/],
  [['--override-generation-config', 'x'], /^--override-generation-config: a JSON object/],
  [['--override-generation-config', '[]'], /^--override-generation-config: a JSON object/],
  [['--max-log-len', 'all'], /^--max-log-len: 'all' is not a number/],
  [['-pp', '2'], /^--pipeline-parallel-size: '2' is not built, only 1 is\.$/],
  [['--distributed-executor-backend=ray'], /^--distributed-executor-backend: 'ray' is not built/],
  [['--enable-chunked-prefill=1'], /^--enable-chunked-prefill: it takes no value$/],
  [['-dpn', '0'], /^-dpn: vllm-ts does not have this flag of vLLM yet/],
  [['-O3'], /^-O: vllm-ts does not have this flag of vLLM yet/],
  [['-tp', '0'], /^--tensor-parallel-size: /],
  [
    ['--master-addr', '10.0.0.1', '-tp', '2'],
    /^--master-addr needs --nnodes, the number of hosts$/,
  ],
  [['-r', '1'], /^--node-rank needs --nnodes/],
  [['--master-port=29501'], /^--master-port needs --nnodes/],
  [['--node-key-file', 'key'], /^--node-key-file needs --nnodes/],
  [['--node-timeout', '9'], /^--node-timeout needs --nnodes/],
  [['-n', '2', '--master-addr', '10.0.0.1:29501'], /^--master-addr: '10.0.0.1:29501' is not the /],
  [['-n', '2', '--master-addr', 'http://a'], /^--master-addr: 'http:\/\/a' is not the address or/],
  [['--quantization=fp8'], /^--quantization: vllm-ts does not have/],
  [['a', 'b'], /more than one MODEL/],
];
for (const [argv, message] of bad)
  t.test(`parseCommandLine refuses ${argv.join(' ')}`, (t) => {
    t.throws(() => parse(...argv), Object.assign(new StartError(64, ''), { message }));
    t.end();
  });

t.test('parseCommandLine refuses an unknown command', (t) => {
  t.throws(() => parseCommandLine(['serv'], ''), {
    exitCode: 64,
    message: /^unknown command serv\. Did you/,
  });
  t.throws(() => parseCommandLine(['bench', 'serve'], ''), { message: /^bench: vllm-ts does not/ });
  t.throws(() => parseCommandLine([], ''), { message: /no command/, exitCode: 64 });
  t.end();
});

t.test('flags are vLLM names: kebab case, each once', (t) => {
  const names = Object.values(flags).map(({ name }) => name);
  t.equal(new Set(names).size, names.length);
  for (const name of names) t.match(name, /^--[a-z]+(-[a-z]+)*$/);
  t.end();
});

t.test('nearest finds small slips and nothing else', (t) => {
  t.equal(nearest('--modle-len', ['--max-model-len', '--model-len']), '--model-len');
  t.equal(nearest('zzzzzz', ['serve', 'bench']), null);
  t.equal(nearest('prio', ['fcfs', 'priority']), 'priority');
  t.equal(nearest('flo', ['float16', 'float32', 'auto']), null, 'two begin so');
  t.end();
});
