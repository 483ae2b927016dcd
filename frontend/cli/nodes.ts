// --nnodes: what the head and the other nodes make of the flags. Node rank 0 is the head, which runs
// everything but the ranks of other nodes; it takes --master-port for nodes, the next for the
// engine's workers, and those after it for each rank.
import { lookup } from 'node:dns/promises';
import { createSocket } from 'node:dgram';
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { exitCodes, StartError } from '../../common/errors.ts';
import { hostMemory } from '../../common/host-memory.ts';
import type { EndNode, NodeJoin } from '../../common/wire/messages.ts';
import { makeNodeKeys, type NodeKeys } from '../supervisor/node-keys.ts';
import type { Config } from './config.ts';
import type { Flags } from './flags.ts';
import { hostPort } from './host-port.ts';
import { hashModel, type ModelHash } from './model-hash.ts';

/** Ports from --master-port on: nodes, workers of the engine, then one a rank. */
const workerPortOffset = 1;
const rankPortOffset = 2;
const minSecretBytes = 16;

/** Wrong numbers, before anything is read or reached. */
export function checkNodes(flags: Flags, device: Config['device']): void {
  const { nnodes, nodeRank, masterAddr, masterPort, tensorParallelSize: numRanks } = flags;
  if (nodeRank >= nnodes) throw badFlag(`--node-rank: ${nodeRank} is not below --nnodes ${nnodes}`);
  if (nnodes === 1) return;
  const name = `--nnodes ${nnodes}`;
  if (device === 'reference')
    throw badFlag(`${name} is not built on reference; supported: cpu, cuda`);
  if (numRanks % nnodes !== 0)
    throw badFlag(`${name}: --tensor-parallel-size ${numRanks} does not divide by it`);
  if (masterAddr === null) throw badFlag(`${name} needs --master-addr, the address of node 0`);
  if (['*', '0.0.0.0', '::'].includes(masterAddr))
    throw badFlag(`--master-addr: name one address of node 0, not all of them`);
  if (masterPort + rankPortOffset + numRanks > 65_536)
    throw badFlag(`--master-port: ${masterPort} leaves no ports for ${numRanks} ranks after it`);
}

/** The secret that all nodes share. Throws StartError where there is none. */
export function readNodeKeys({ nodeKeyFile }: Flags, env: NodeJS.ProcessEnv): NodeKeys {
  let secret = env['VLLM_TS_NODE_KEY'] ?? '';
  if (nodeKeyFile !== null) {
    try {
      secret = readFileSync(nodeKeyFile, 'utf8');
    } catch (error) {
      throw badFlag(`--node-key-file: ${(error as Error).message}`);
    }
  }
  secret = secret.trim();
  if (secret === '')
    throw badFlag(
      '--nnodes needs a key that all nodes share, in VLLM_TS_NODE_KEY or --node-key-file ' +
        '(make one: openssl rand -hex 32)',
    );
  if (Buffer.byteLength(secret) < minSecretBytes)
    throw badFlag(`the key of the nodes is shorter than ${minSecretBytes} bytes`);
  return makeNodeKeys(secret);
}

/** --master-addr as a number: sockets are bound by numbers alone. */
export async function resolveHost(host: string): Promise<string> {
  const bare = host.replace(/^\[(.*)\]$/, '$1');
  if (isIP(bare) !== 0) return bare;
  try {
    return (await lookup(bare)).address;
  } catch (error) {
    throw badFlag(`--master-addr: ${(error as Error).message}`);
  }
}

export const nodesAddress = (host: string, { masterPort }: Flags) =>
  `tcp://${hostPort(host, masterPort)}`;

export const workersAddress = (host: string, { masterPort }: Flags) =>
  `tcp://${hostPort(host, masterPort + workerPortOffset)}`;

export const rankAddress = (host: string, rank: number, { masterPort }: Flags) =>
  hostPort(host, masterPort + rankPortOffset + rank);

/** Where ranks of this node listen: VLLM_HOST_IP, else the address that leads to the head. */
async function ownAddress(head: string, env: NodeJS.ProcessEnv): Promise<string> {
  const given = env['VLLM_HOST_IP'] ?? '';
  if (given !== '' && isIP(given) === 0) throw badFlag(`VLLM_HOST_IP: ${given} is no address`);
  if (given !== '') return given;
  const address = await resolveHost(head);
  const socket = createSocket(isIP(address) === 6 ? 'udp6' : 'udp4');
  try {
    // Nothing is sent: the system chooses the route.
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject);
      socket.connect(9, address, resolve);
    });
    return socket.address().address;
  } finally {
    socket.close();
  }
}

const seedOfWeights = ({ flags }: Config) => (flags.loadFormat === 'dummy' ? flags.seed : null);

/** What this node tells the head. */
export async function makeJoin(config: Config, env: NodeJS.ProcessEnv): Promise<NodeJoin> {
  const { flags, model } = config;
  const hash = hashModel(model, seedOfWeights(config));
  return {
    kind: 'nodeJoin',
    nodeRank: flags.nodeRank,
    numNodes: flags.nnodes,
    numRanks: flags.tensorParallelSize,
    arch: process.arch,
    address: await ownAddress(flags.masterAddr!, env),
    modelPath: model.path,
    configHash: hash.config,
    weightsHash: hash.weights,
    numThreads: flags.threads,
    hostMemory: hostMemory(),
  };
}

export type Refusal = (join: NodeJoin) => Pick<EndNode, 'exitCode' | 'message'> | null;

/** What a node must have in common with this head. */
export function makeRefusal(config: Config): Refusal {
  const hash = hashModel(config.model, seedOfWeights(config));
  return (join) => refuse(join, config, hash);
}

function refuse(join: NodeJoin, { flags, model }: Config, hash: ModelHash) {
  const { nnodes, tensorParallelSize } = flags;
  const { nodeRank, numNodes, numRanks, arch, address, modelPath } = join;
  const paths = `${modelPath} of node ${nodeRank} and ${model.path} of the head`;
  const refusal = (exitCode: number, message: string) => ({ exitCode, message });
  if (numNodes !== nnodes || numRanks !== tensorParallelSize)
    return refusal(
      exitCodes.badFlag,
      `it has --nnodes ${numNodes} --tensor-parallel-size ${numRanks}, the head ${nnodes} and ${tensorParallelSize}`,
    );
  if (nodeRank < 1 || nodeRank >= nnodes)
    return refusal(exitCodes.badFlag, `--node-rank ${nodeRank} is not one of 1 to ${nnodes - 1}`);
  if (isIP(address) === 0) return refusal(exitCodes.badFlag, `${address} is no address`);
  if (arch !== process.arch)
    return refusal(
      exitCodes.versionMismatch,
      `its processor is ${arch}, the head's ${process.arch}: the ranks would not agree on bits`,
    );
  if (join.configHash !== hash.config)
    return refusal(exitCodes.badModel, `config.json differs between ${paths}`);
  if (join.weightsHash !== hash.weights)
    return refusal(exitCodes.badModel, `the weights differ between ${paths}`);
  return null;
}

const badFlag = (message: string) => new StartError(exitCodes.badFlag, message);
