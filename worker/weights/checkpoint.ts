// The safetensors files of a model folder as one set of tensors by name: model.safetensors, or the
// shards that model.safetensors.index.json names. Names in the index are plain file names, and no
// file is followed out of the folder (but for the hub cache, whose snapshots link to its blobs).
import { constants } from 'node:buffer';
import { realpathSync } from 'node:fs';
import { basename, dirname, join, sep } from 'node:path';
import { badModel } from '../../common/errors.ts';
import { JsonFields } from '../../common/json-fields.ts';
import { isObject } from '../../common/json-object.ts';
import { statModelPath } from '../../common/model-file.ts';
import { readSafetensorsHeader, type TensorEntry } from './safetensors.ts';
import { openTensorFile, type TensorFile } from './tensor-file.ts';

export interface CheckpointTensor extends TensorEntry {
  readonly file: string;
  readonly data: Uint8Array;
}

interface Located {
  readonly entry: TensorEntry;
  readonly file: TensorFile;
}

const singleName = 'model.safetensors';
const indexName = 'model.safetensors.index.json';

export class Checkpoint {
  readonly folder: string;
  private readonly located = new Map<string, Located>();

  private constructor(folder: string) {
    this.folder = folder;
  }

  /** Opens every file and checks its header. Throws StartError (exit 65). */
  static open(folder: string): Checkpoint {
    const checkpoint = new Checkpoint(folder);
    const index = JsonFields.readOptional(folder, indexName);
    if (index) checkpoint.addShards(index);
    else if (statModelPath(join(folder, singleName)))
      for (const [name, tensor] of checkpoint.readFile(singleName))
        checkpoint.located.set(name, tensor);
    else throw badModel(`${folder} has neither ${singleName} nor ${indexName}: no weights to load`);
    return checkpoint;
  }

  get(name: string): CheckpointTensor {
    const found = this.located.get(name);
    if (found) {
      const { entry, file } = found;
      const numBytes = entry.end - entry.begin;
      if (numBytes > constants.MAX_LENGTH)
        throw badModel(
          `${file.path}: tensor ${name} has ${numBytes} bytes, more than the ` +
            `${constants.MAX_LENGTH} that Node ${process.version} can hold; later ones can`,
        );
      return { ...entry, file: file.path, data: file.slice(entry.begin, entry.end) };
    }
    throw badModel(`${this.folder}: tensor ${name} is in no safetensors file`);
  }

  private addShards(index: JsonFields): void {
    const map = index.raw('weight_map');
    if (!isObject(map)) throw index.fail('weight_map', 'is not an object');
    const shards = new Map<string, ReadonlyMap<string, Located>>();
    for (const [name, shard] of Object.entries(map)) {
      if (typeof shard !== 'string' || !/^[\w.-]+$/.test(shard) || /^\.+$/.test(shard))
        throw index.fail('weight_map', `${name}: ${JSON.stringify(shard)} is no plain file name`);
      let tensors = shards.get(shard);
      if (!tensors) {
        tensors = this.readFile(shard);
        shards.set(shard, tensors);
      }
      const tensor = tensors.get(name);
      if (!tensor)
        throw badModel(`${join(this.folder, shard)}: tensor ${name} is missing; the index has it`);
      this.located.set(name, tensor);
    }
  }

  private readFile(name: string): ReadonlyMap<string, Located> {
    const file = this.openInside(name);
    const entries = readSafetensorsHeader(file);
    return new Map([...entries].map(([tensor, entry]) => [tensor, { entry, file }]));
  }

  private openInside(name: string): TensorFile {
    const path = join(this.folder, name);
    if (statModelPath(path)?.isFile() !== true)
      throw badModel(`${path} does not exist or is not a file`);
    const real = realpathSync(path);
    const folder = realpathSync(this.folder);
    const isSnapshot = basename(dirname(folder)) === 'snapshots';
    const roots = [folder, ...(isSnapshot ? [join(folder, '..', '..', 'blobs')] : [])];
    if (!roots.some((root) => real.startsWith(root + sep)))
      throw badModel(`${path} is a link that leads out of the model folder`);
    return openTensorFile(path);
  }
}
