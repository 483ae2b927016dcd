// Links: a ROUTER that binds, DEALERs that connect. A link moves messages; what they mean is its
// owner's business.
export type { AnyMessage } from './codec.ts';
export { DealerLink, type DealerEvents } from './dealer-link.ts';
export {
  maxHelloBytes,
  maxUnreadByFrontend,
  RouterLink,
  type PeerId,
  type RouterEvents,
} from './router-link.ts';
export { checkAddress, clientCurve, maxSocketPathBytes, type CurveKeys } from './socket.ts';
