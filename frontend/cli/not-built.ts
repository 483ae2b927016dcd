// What vLLM has on its command line and this server has not, or has without a flag.
/** Flags of vLLM that are not built here yet: refused by name. */
export const notBuilt: ReadonlySet<string> = new Set(
  `--pipeline-parallel-size -pp --data-parallel-size -dp --data-parallel-backend
  --decode-context-parallel-size -dcp --prefill-context-parallel-size -pcp --enable-expert-parallel
  --enable-eplb --enable-dbo --quantization -q --calculate-kv-scales --enable-lora --max-loras
  --max-lora-rank --lora-modules --fully-sharded-loras --speculative-config
  --enable-auto-tool-choice --tool-call-parser --tool-parser-plugin --tool-server
  --exclude-tools-when-tool-choice-none --reasoning-parser --api-server-count --kv-transfer-config
  --kv-events-config --kv-offloading-size --kv-offloading-backend --compilation-config -O
  --optimization-level --cudagraph-capture-sizes --max-cudagraph-capture-size --attention-backend
  --distributed-executor-backend --worker-cls --scheduler-cls --additional-config
  --no-enable-chunked-prefill --disable-sliding-window --num-gpu-blocks-override
  --prefix-caching-hash-algo --long-prefill-token-threshold --logprobs-mode --logits-processors
  --tokenizer-mode --tokenizer-revision --skip-tokenizer-init --revision --code-revision
  --hf-token --hf-config-path --hf-overrides --config-format --rope-scaling --rope-theta
  --download-dir --ignore-patterns --model-loader-extra-config --safetensors-load-strategy
  --task --runner --convert --pooler-config --config
  --allow-credentials --allowed-methods --allowed-headers --response-role
  --chat-template-content-format --default-chat-template-kwargs --trust-request-chat-template
  --cpu-offload-gb --limit-mm-per-prompt --mm-processor-kwargs --enable-prompt-embeds
  --language-model-only --structured-outputs-config --guided-decoding-backend
  --max-num-partial-prefills --max-long-partial-prefills --disable-hybrid-kv-cache-manager
  --otlp-traces-endpoint --collect-detailed-traces --show-hidden-metrics-for-version
  --enable-log-outputs --enable-tokenizer-info-endpoint --log-config-file --profiler-config
  --uvicorn-log-level --ssl-ca-certs --ssl-cert-reqs --ssl-ciphers --enable-ssl-refresh
  --h11-max-incomplete-event-size --h11-max-header-count --middleware
  --disable-frontend-multiprocessing --enable-sleep-mode --model-impl
  --return-tokens-as-token-ids`.split(/\s+/),
);

const unlogged = 'requests are logged with --enable-log-requests only, leave it out';

/** Flags of vLLM that ask for what is so anyway, or is said otherwise here. */
export const needless: ReadonlyMap<string, string> = new Map([
  ['--enable-chunked-prefill', 'long prompts always come in chunks, leave it out'],
  ['--async-scheduling', 'the engine always runs ahead, leave it out (--async-depth says how far)'],
  ['--no-async-scheduling', 'here it is --async-depth 1'],
  ['--model', 'MODEL has no flag: vllm-ts serve MODEL'],
  ['--trust-remote-code', 'code that comes with a model is never run, leave it out'],
  ['--enforce-eager', 'leave it out, or say --debug-sync to find the op that fails'],
  ['--swap-space', 'nothing is swapped (what is preempted is computed again), leave it out'],
  ['--disable-log-requests', unlogged],
  ['--disable-uvicorn-access-log', unlogged],
  ['--max-log-len', 'prompts are never logged, leave it out'],
  ['--enable-server-load-tracking', 'GET /load is always there, leave it out'],
  ['--enable-request-id-headers', 'X-Request-Id always comes back, leave it out'],
  ['--disable-fastapi-docs', 'there are no such pages, leave it out'],
  ['--disable-custom-all-reduce', 'here it is VLLM_TS_CUDA_COLLECTIVES=nccl in the environment'],
]);
