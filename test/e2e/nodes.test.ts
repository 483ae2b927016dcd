// Two hosts that are two addresses of this machine.
import { randomInt } from 'node:crypto';
import t from 'tap';
import { limitMs, runCommand, serveCommand } from './server.ts';
import { testNodes, type Hosts } from './nodes-suite.ts';

t.setTimeout(20 * limitMs);

/** All of 127/8 is this machine: other servers of this test's time have other addresses. */
const subnet = `127.${randomInt(1, 255)}.${randomInt(256)}`;
const hosts: Hosts = {
  addresses: [`${subnet}.1`, `${subnet}.2`],
  run: [[], ['env', `VLLM_HOST_IP=${subnet}.2`]],
};

testNodes(() => hosts);

t.test('flags that cannot be are start errors', async (t) => {
  const fail = async (...argv: string[]) => {
    const server = runCommand(t, ['env', '-u', 'VLLM_TS_NODE_KEY', ...serveCommand, ...argv]);
    t.equal((await server.exited).code, 64);
    return server.stderr;
  };
  const two = ['--device', 'cpu', '--nnodes', '2', '--port', '0'];
  const addressed = [...two, '--master-addr', hosts.addresses[0]];
  t.match(
    await fail('--nnodes', '1', '--node-rank', '1'),
    /--node-rank: 1 is not below --nnodes 1/,
  );
  t.match(await fail(...two), /--nnodes 2: --tensor-parallel-size 1 does not divide by it/);
  t.match(await fail(...two, '-tp', '2'), /--nnodes 2 needs --master-addr/);
  t.match(
    await fail(...two, '-tp', '2', '--master-addr', '0.0.0.0'),
    /--master-addr: name one address of node 0/,
  );
  t.match(
    await fail(...two, '-tp', '2', '--master-addr', 'no-such-host.invalid'),
    /--master-addr: .*no-such-host.invalid/,
  );
  t.match(
    await fail(...addressed, '-tp', '2'),
    /--nnodes needs a key that all nodes share, in VLLM_TS_NODE_KEY or --node-key-file/,
  );
  t.match(
    await fail(...addressed, '-tp', '2', '--node-key-file', '/nonexistent'),
    /--node-key-file: ENOENT/,
  );
  t.match(
    await fail('--device', 'reference', '--nnodes', '2', '-tp', '2'),
    /--nnodes 2 is not built on reference; supported: cpu, cuda/,
  );
});
