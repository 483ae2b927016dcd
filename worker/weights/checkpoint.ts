// The safetensors files of a model folder as one set of tensors by name: model.safetensors, or the
// shards that model.safetensors.index.json names. Names in the index are plain file names, and no
// file is followed out of the folder (but for the hub cache, whose snapshots link to its blobs).
import { realpathSync, statSync } from 'node:fs';
import { basename, dirname, join, sep } from 'node:path';
import { badModel, isObject, JsonFields } from '../../common/json-fields.ts';
import { readSafetensorsHeader, type TensorEntry } from './safetensors.ts';
import { openTensorFile, type TensorFile } from './tensor-file.ts';

export interface CheckpointTensor extends TensorEntry {
  readonly file: string;
  readonly data: Uint8Array;
}

const singleName = 'model.safetensors';
const indexName = 'model.safetensors.index.json';

export class Checkpoint {
  readonly folder: string;
  private readonly tensors = new Map<string, CheckpointTensor>();

  private constructor(folder: string) {
    this.folder = folder;
  }

  /** Opens every file and checks its header. Throws StartError (exit 65). */
  static open(folder: string): Checkpoint {
    const checkpoint = new Checkpoint(folder);
    const index = JsonFields.readOptional(folder, indexName);
    if (index) checkpoint.addShards(index);
    else if (statSync(join(folder, singleName), { throwIfNoEntry: false }))
      for (const tensor of checkpoint.readFile(singleName)) checkpoint.add(tensor);
    else throw badModel(`${folder} has neither ${singleName} nor ${indexName}: no weights to load`);
    return checkpoint;
  }

  get(name: string): CheckpointTensor {
    const tensor = this.tensors.get(name);
    if (tensor) return tensor;
    throw badModel(`${this.folder}: tensor ${name} is in no safetensors file`);
  }

  private addShards(index: JsonFields): void {
    const map = index.raw('weight_map');
    if (!isObject(map)) throw index.fail('weight_map', 'is not an object');
    const shards = new Map<string, Map<string, CheckpointTensor>>();
    for (const [name, shard] of Object.entries(map)) {
      if (typeof shard !== 'string' || !/^[\w.-]+$/.test(shard) || /^\.+$/.test(shard))
        throw index.fail('weight_map', `${name}: ${JSON.stringify(shard)} is no plain file name`);
      let tensors = shards.get(shard);
      if (!tensors) {
        tensors = new Map(this.readFile(shard).map((tensor) => [tensor.name, tensor]));
        shards.set(shard, tensors);
      }
      const tensor = tensors.get(name);
      if (!tensor)
        throw badModel(`${join(this.folder, shard)}: tensor ${name} is missing; the index has it`);
      this.add(tensor);
    }
  }

  private readFile(name: string): CheckpointTensor[] {
    const file = this.openInside(name);
    return [...readSafetensorsHeader(file.path, file.bytes).values()].map((entry) => ({
      ...entry,
      file: file.path,
      data: file.bytes.subarray(entry.begin, entry.end),
    }));
  }

  private openInside(name: string): TensorFile {
    const path = join(this.folder, name);
    const stat = statSync(path, { throwIfNoEntry: false });
    if (!stat?.isFile()) throw badModel(`${path} does not exist or is not a file`);
    const real = realpathSync(path);
    const folder = realpathSync(this.folder);
    const isSnapshot = basename(dirname(folder)) === 'snapshots';
    const roots = [folder, ...(isSnapshot ? [join(folder, '..', '..', 'blobs')] : [])];
    if (!roots.some((root) => real.startsWith(root + sep)))
      throw badModel(`${path} is a link that leads out of the model folder`);
    return openTensorFile(path);
  }

  private add(tensor: CheckpointTensor): void {
    this.tensors.set(tensor.name, tensor);
  }
}
