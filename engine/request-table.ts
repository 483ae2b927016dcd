// Every open request by (frontendId, requestId). A frontend reaches only its own.
import type { Request } from './request.ts';

export class RequestTable {
  size = 0;
  private readonly frontends = new Map<number, Map<number, Request>>();

  addFrontend(frontendId: number): void {
    if (!this.frontends.has(frontendId)) this.frontends.set(frontendId, new Map());
  }

  removeFrontend(frontendId: number): void {
    this.size -= this.frontends.get(frontendId)?.size ?? 0;
    this.frontends.delete(frontendId);
  }

  get(frontendId: number, requestId: number): Request | undefined {
    return this.frontends.get(frontendId)?.get(requestId);
  }

  add(request: Request): void {
    const requests = this.frontends.get(request.frontendId);
    if (!requests) throw new Error(`frontend ${request.frontendId} is unknown`);
    requests.set(request.requestId, request);
    this.size++;
  }

  delete(request: Request): void {
    if (this.frontends.get(request.frontendId)?.delete(request.requestId)) this.size--;
  }

  /** Whether the frontend has open requests. */
  has(frontendId: number): boolean {
    return (this.frontends.get(frontendId)?.size ?? 0) > 0;
  }

  of(frontendId: number): Request[] {
    return [...(this.frontends.get(frontendId)?.values() ?? [])];
  }

  all(): Request[] {
    return [...this.frontends.values()].flatMap((requests) => [...requests.values()]);
  }
}
