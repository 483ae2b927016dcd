// What vLLM has on its command line and this server has not, or has without a flag.
/** Flags of vLLM that are not built here yet: refused by name. */
export const notBuilt: ReadonlySet<string> = new Set(
  `--pipeline-parallel-size -pp --data-parallel-size -dp
  --decode-context-parallel-size -dcp --prefill-context-parallel-size -pcp --enable-expert-parallel
  --quantization -q --enable-lora --max-loras --max-lora-rank
  --lora-modules --speculative-config --enable-auto-tool-choice --tool-call-parser
  --reasoning-parser --api-server-count --kv-transfer-config --kv-events-config
  --kv-offloading-size --kv-offloading-backend --enforce-eager --compilation-config -O
  --distributed-executor-backend
  --no-enable-chunked-prefill
  --prefix-caching-hash-algo --long-prefill-token-threshold --logprobs-mode --tokenizer-mode
  --trust-remote-code --revision --download-dir --hf-overrides --task --runner --config
  --allow-credentials --allowed-methods --allowed-headers --response-role --swap-space
  --cpu-offload-gb --limit-mm-per-prompt --structured-outputs-config --max-num-partial-prefills
  --otlp-traces-endpoint --enable-server-load-tracking
  --uvicorn-log-level --disable-uvicorn-access-log --ssl-ca-certs --ssl-cert-reqs --middleware
  --enable-sleep-mode --model-impl --chat-template-content-format --return-tokens-as-token-ids`.split(
    /\s+/,
  ),
);

/** Flags of vLLM that ask for what is so anyway, or is said otherwise here. */
export const needless: ReadonlyMap<string, string> = new Map([
  ['--enable-chunked-prefill', 'long prompts always come in chunks, leave it out'],
  ['--async-scheduling', 'the engine always runs ahead, leave it out (--async-depth says how far)'],
  ['--no-async-scheduling', 'here it is --async-depth 1'],
  ['--model', 'MODEL has no flag: vllm-ts serve MODEL'],
]);
