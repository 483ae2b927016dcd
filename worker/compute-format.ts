// What a device computes in: dtypes of activations, weights and KV, and how merged weights lie.
// What is not built there is refused by the name of its flag or field.
import { join } from 'node:path';
import type { ModelConfig, WorkerSlice } from '../common/config.ts';
import { badModel, exitCodes, StartError } from '../common/errors.ts';
import { kvHeadsOfRank } from '../common/tensor-parallel.ts';

export interface ComputeFormat {
  readonly actDtype: ModelConfig['dtype'];
  readonly weightDtype: ModelConfig['dtype'];
  readonly kvDtype: ModelConfig['dtype'];
  /** Gate and up rows alternate in groups of this many; 0 = gate rows, then up rows. */
  readonly interleave: number;
  /** Rows of a step that gate and up lie in memory for, where that is less than all of them. */
  readonly gateUpRows?: number;
  /** Whether a linear may write over its residual. */
  readonly residualInPlace: boolean;
  /** What the operator should know of these choices. */
  readonly notes: readonly string[];
}

type FormatSlice = Pick<
  WorkerSlice,
  'device' | 'dtype' | 'kvCacheDtype' | 'model' | 'blockSize' | 'numRanks'
>;

const flagNames = { f32: 'float32', f16: 'float16', bf16: 'bfloat16' } as const;
const cudaHeadDims: readonly number[] = [64, 80, 96, 128, 256];
const cudaMaxHeadsPerKvHead = 16;
const cudaMaxColumns = 16_384;
/** From here on siluAndMul is the end of the linear (kernels/cuda/linear.cu), which writes neither. */
const cudaGateUpRows = 2048;

/** Throws StartError (64 for a flag, 65 for a model). */
export function computeFormat(slice: FormatSlice): ComputeFormat {
  return slice.device === 'cuda' ? cudaFormat(slice) : hostFormat(slice);
}

/** cpu and reference: f32 activations, weights as in the checkpoint. */
function hostFormat({ device, dtype, kvCacheDtype, model }: FormatSlice): ComputeFormat {
  const actDtype = dtype === 'auto' ? 'f32' : dtype;
  const kvDtype = kvCacheDtype === 'auto' ? 'f32' : kvCacheDtype;
  if (device === 'cpu' && actDtype !== 'f32')
    throw badFlag(
      `--dtype ${flagNames[actDtype]} is not built on cpu: activations are float32 there, weights keep their own dtype`,
    );
  if (device === 'cpu' && kvDtype === 'f16')
    throw badFlag('--kv-cache-dtype float16 is not built on cpu; supported: float32, bfloat16');
  const weightDtype = model.dtype;
  return { actDtype, weightDtype, kvDtype, interleave: 0, residualInPlace: true, notes: [] };
}

/** cuda: one 16-bit dtype for all. */
function cudaFormat(slice: FormatSlice): ComputeFormat {
  const { dtype, kvCacheDtype, model, blockSize } = slice;
  const supported = 'supported: bfloat16, float16';
  if (dtype === 'f32') throw badFlag(`--dtype float32 is not built on cuda; ${supported}`);
  const notes: string[] = [];
  if (dtype === 'auto' && model.dtype === 'f32')
    notes.push('the checkpoint is float32: weights and activations are bfloat16 on cuda');
  const act = dtype !== 'auto' ? dtype : model.dtype === 'f32' ? 'bf16' : model.dtype;
  if (kvCacheDtype !== 'auto' && kvCacheDtype !== act)
    throw badFlag(
      `--kv-cache-dtype ${flagNames[kvCacheDtype]} is not built on cuda with ${flagNames[act]} activations: both are one`,
    );
  if (blockSize < 16 || (blockSize & (blockSize - 1)) !== 0)
    throw badFlag(`--block-size: ${blockSize} is not built on cuda; it takes 16, 32, 64, ...`);
  checkCudaModel(slice);
  const dtypes = { actDtype: act, weightDtype: act, kvDtype: act };
  // In place cuBLASLt rounds a sum twice, and our own kernel for many rows is slow.
  return { ...dtypes, interleave: 8, residualInPlace: false, gateUpRows: cudaGateUpRows, notes };
}

function checkCudaModel({ model, numRanks }: FormatSlice): void {
  const { headDim, numHeads, hiddenSize, intermediateSize } = model;
  const numKvHeads = kvHeadsOfRank(model, { rank: 0, numRanks }).length;
  const refuse = (field: string, what: string) =>
    badModel(
      `${join(model.path, 'config.json')}: ${field} ${what} on cuda yet; --device cpu runs it`,
    );
  if (!cudaHeadDims.includes(headDim))
    throw refuse('head_dim', `${headDim} is not built (${cudaHeadDims.join(', ')} are)`);
  if (numHeads / numRanks / numKvHeads > cudaMaxHeadsPerKvHead)
    throw refuse(
      'num_attention_heads',
      `more than ${cudaMaxHeadsPerKvHead} for each KV head is not built`,
    );
  for (const [field, value] of [
    ['hidden_size', hiddenSize],
    // Ranks fill up their shares with zeros.
    ['intermediate_size', numRanks === 1 ? intermediateSize : 0],
  ] as const)
    if (value % 16 !== 0) throw refuse(field, `${value}, no multiple of 16, is not built`);
  if (hiddenSize > cudaMaxColumns)
    throw refuse('hidden_size', `above ${cudaMaxColumns} is not built`);
}

const badFlag = (message: string) => new StartError(exitCodes.badFlag, message);
