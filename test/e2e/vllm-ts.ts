// The vllm-ts command as tsc left it: what scripts/vllm-ts.mjs runs from a bundle.
import { main } from '../../frontend/cli/main.ts';

await main(process.argv.slice(2));
