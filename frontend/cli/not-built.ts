// What vLLM has on its command line and this server has not: refused by name. What may be said
// because it changes nothing is in no-effect.ts.
export const notBuilt: ReadonlySet<string> = new Set(
  `--data-parallel-rank -dpn --data-parallel-start-rank -dpr --data-parallel-size-local -dpl
  --data-parallel-address -dpa --data-parallel-rpc-port -dpp --data-parallel-backend -dpb
  --data-parallel-hybrid-lb --data-parallel-external-lb --enable-expert-parallel -ep
  --all2all-backend --enable-eplb --eplb-config --expert-placement-strategy --enable-dbo
  --max-parallel-loading-workers --ray-workers-use-nsight --worker-extension-cls
  --quantization -q --calculate-kv-scales --kv-sharing-fast-prefill --enable-lora --max-loras
  --max-lora-rank --max-cpu-loras --lora-dtype --lora-modules --fully-sharded-loras
  --default-mm-loras --speculative-config
  --enable-auto-tool-choice --tool-call-parser --tool-parser-plugin --tool-server
  --exclude-tools-when-tool-choice-none --reasoning-parser --kv-transfer-config
  --kv-events-config --kv-offloading-size --kv-offloading-backend --compilation-config -cc -O
  --optimization-level --cudagraph-capture-sizes --cuda-graph-sizes --max-cudagraph-capture-size
  --attention-backend --attention-config --worker-cls --scheduler-cls --additional-config
  --no-enable-chunked-prefill --no-disable-cascade-attn --disable-sliding-window
  --num-gpu-blocks-override --num-lookahead-slots --disable-chunked-mm-input --logits-processors
  --logits-processor-pattern --override-attention-dtype --io-processor-plugin
  --tokenizer-revision --skip-tokenizer-init --revision --code-revision
  --hf-token --hf-config-path --hf-overrides --rope-scaling --rope-theta
  --download-dir --ignore-patterns --model-loader-extra-config --safetensors-load-strategy
  --use-tqdm-on-load --pt-load-map-location --pooler-config --config
  --allow-credentials --allowed-methods --allowed-headers
  --allowed-local-media-path --allowed-media-domains
  --default-chat-template-kwargs --trust-request-chat-template
  --limit-mm-per-prompt --mm-processor-kwargs --mm-processor-cache-gb --mm-processor-cache-type
  --mm-encoder-tp-mode --mm-encoder-attn-backend --media-io-kwargs --interleave-mm-strings
  --skip-mm-profiling --enable-mm-embeds --enable-prompt-embeds
  --language-model-only --structured-outputs-config --guided-decoding-backend
  --disable-hybrid-kv-cache-manager --mamba-cache-dtype --mamba-ssm-cache-dtype
  --mamba-block-size --otlp-traces-endpoint --collect-detailed-traces
  --show-hidden-metrics-for-version --aggregate-engine-logging
  --enable-log-outputs --enable-tokenizer-info-endpoint --log-config-file --profiler-config
  --uvicorn-log-level --ssl-ca-certs --ssl-ciphers --enable-ssl-refresh
  --h11-max-incomplete-event-size --h11-max-header-count --middleware
  --disable-frontend-multiprocessing --enable-sleep-mode
  --return-tokens-as-token-ids`.split(/\s+/),
);

/** Flags of vLLM for what is said otherwise here. */
export const saidOtherwise: ReadonlyMap<string, string> = new Map([
  ['--no-async-scheduling', 'here it is --async-depth 1'],
  ['--model', 'MODEL has no flag: vllm-ts serve MODEL'],
  ['--disable-custom-all-reduce', 'here it is VLLM_TS_CUDA_COLLECTIVES=nccl in the environment'],
]);
