import t from 'tap';
import type { Request } from '../../engine/request.ts';
import { compareRequests, RequestQueue } from '../../engine/request-queue.ts';
import { makeRequest as make } from './make-request.ts';
import { Random } from './random.ts';

const makeRequest = (arrival: number, priority = 0) =>
  make({ requestId: arrival, arrival, priority });

const arrivals = (queue: RequestQueue) => [...queue].map(({ arrival }) => arrival);

t.test('RequestQueue puts a preempted request back where it was', (t) => {
  const queue = new RequestQueue();
  const requests = [0, 1, 2, 3, 4].map((arrival) => makeRequest(arrival));
  for (const request of requests) queue.add(request);
  queue.remove(requests[1]!);
  queue.remove(requests[0]!);
  queue.remove(requests[2]!);
  queue.add(requests[2]!);
  queue.add(requests[0]!);
  queue.add(requests[1]!);
  t.same(arrivals(queue), [0, 1, 2, 3, 4]);
  t.equal(queue.numPromptTokens, 10);
  t.end();
});

t.test('RequestQueue goes by priority, then by arrival', (t) => {
  const queue = new RequestQueue();
  for (const [arrival, priority] of [5, -1, 0, 5, -1].entries())
    queue.add(makeRequest(arrival, priority));
  t.same(arrivals(queue), [1, 4, 2, 0, 3]);
  t.end();
});

t.test('RequestQueue agrees with a sorted array in random runs', (t) => {
  for (let seed = 1; seed <= 20; seed++) {
    const random = new Random(seed);
    const queue = new RequestQueue();
    const out: Request[] = [];
    let model: Request[] = [];
    for (let i = 0; i < 300; i++) {
      const action = random.int(0, 2);
      if (action === 0) model.push(makeRequest(i, random.int(-2, 2)));
      else if (action === 1 && out.length > 0) model.push(out.splice(0, 1)[0]!);
      else if (model.length > 0) {
        const gone = random.pick(model);
        model = model.filter((request) => request !== gone);
        queue.remove(gone);
        out.push(gone);
        continue;
      } else continue;
      queue.add(model.at(-1)!);
      model.sort(compareRequests);
      queue.checkIntegrity();
      const wanted = model.map(({ arrival }) => arrival);
      if (arrivals(queue).join() !== wanted.join()) throw new Error(`seed ${seed}`);
    }
  }
  t.pass();
  t.end();
});
