// What the nodes of one server prove to each other with, all from one secret that the operator gave
// to each: the head's CURVE keys (who does not know its public key gets no word across) and the
// token of a node's hello. The secret itself is never sent.
import { createPrivateKey, createPublicKey, hkdfSync } from 'node:crypto';
import type { CurveKeys } from '../../common/wire/transport.ts';

/** A node that says nothing for so long has vanished. */
export const nodeSilenceMs = 4000;

export interface NodeKeys {
  /** The head's, for the end that binds; ranks and nodes need its public key alone. */
  readonly server: CurveKeys;
  readonly token: string;
}

export function makeNodeKeys(secret: string): NodeKeys {
  const derive = (what: string) =>
    Buffer.from(hkdfSync('sha256', secret, '', `vllm-ts nodes: ${what}`, 32));
  const secretKey = derive('key of the head');
  return {
    server: {
      publicKey: toZ85(publicKeyOf(secretKey)),
      secretKey: toZ85(secretKey),
      serverKey: null,
    },
    token: derive('token').toString('hex'),
  };
}

/** What stands before the 32 bytes of an X25519 key in PKCS#8. */
const pkcs8Prefix = Buffer.from('302e020100300506032b656e04220420', 'hex');

function publicKeyOf(secretKey: Buffer): Buffer {
  const key = Buffer.concat([pkcs8Prefix, secretKey]);
  const privateKey = createPrivateKey({ key, format: 'der', type: 'pkcs8' });
  return createPublicKey(privateKey).export({ format: 'der', type: 'spki' }).subarray(-32);
}

const z85Digits =
  '0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#';

/** As ZeroMQ takes keys: five digits for four bytes. */
function toZ85(bytes: Buffer): string {
  let text = '';
  for (let at = 0; at < bytes.length; at += 4) {
    const value = bytes.readUInt32BE(at);
    for (let power = 85 ** 4; power >= 1; power /= 85)
      text += z85Digits[Math.floor(value / power) % 85]!;
  }
  return text;
}
