// Ids 0..numIds-1 that are free, held by steps in flight, or in use. Free and held ids are in
// intrusive doubly linked lists over Int32Array columns, so that any id leaves its list in O(1).
// Knows neither what an id stands for nor why it is released.

const inUse = -1;
const freeList = 0;

export class IdLists {
  readonly numIds: number;
  numFree = 0;
  numHeld = 0;
  /** Steps up to this one have retired: nothing in flight refers to them. */
  retired = 0;
  /** [numIds + numLists] the last numLists nodes are the lists' sentinels. */
  private readonly next: Int32Array;
  private readonly prev: Int32Array;
  /** [numIds] list that the id is in, or inUse. List 1 + step % numSteps holds ids until `step`. */
  private readonly listOf: Int8Array;
  private readonly numSteps: number;
  private readonly freed: (id: number) => boolean;

  /**
   * `maxInFlight` bounds the steps in flight. `freed` is called when an id becomes free and says
   * whether it is taken before all other free ids (true) or after them.
   */
  constructor(numIds: number, maxInFlight: number, freed: (id: number) => boolean) {
    this.numIds = numIds;
    this.numSteps = maxInFlight + 1;
    this.freed = freed;
    const numNodes = numIds + 1 + this.numSteps;
    this.next = Int32Array.from({ length: numNodes }, (_, node) => node);
    this.prev = this.next.slice();
    this.listOf = new Int8Array(numIds).fill(inUse);
    for (let id = 0; id < numIds; id++) this.insert(id, freeList, false);
    this.numFree = numIds;
  }

  isFree(id: number): boolean {
    return this.listOf[id] === freeList;
  }

  isInUse(id: number): boolean {
    return this.listOf[id] === inUse;
  }

  /** The first free id, now in use; -1 if none is free. */
  take(): number {
    const id = this.next[this.numIds + freeList]!;
    if (id >= this.numIds) return -1;
    this.remove(id);
    return id;
  }

  /** Takes a certain id out of its list: it is in use now. */
  remove(id: number): void {
    const list = this.listOf[id]!;
    if (list === inUse) throw new Error(`id ${id} is in use already`);
    if (list === freeList) this.numFree--;
    else this.numHeld--;
    this.unlink(id);
    this.listOf[id] = inUse;
  }

  /** The id is free, or held until `untilStep` retires. */
  release(id: number, untilStep: number): void {
    if (this.listOf[id] !== inUse) throw new Error(`id ${id} is released twice`);
    if (untilStep <= this.retired) this.free(id);
    else {
      this.insert(id, 1 + (untilStep % this.numSteps), false);
      this.numHeld++;
    }
  }

  /** Steps retire in order, one by one; what they held becomes free. */
  retire(step: number): void {
    this.retired = step;
    const sentinel = this.numIds + 1 + (step % this.numSteps);
    for (let id = this.next[sentinel]!; id < this.numIds; id = this.next[sentinel]!) {
      this.unlink(id);
      this.numHeld--;
      this.free(id);
    }
  }

  /** Rebuilds every invariant from scratch; throws on the first that does not hold. */
  checkIntegrity(): void {
    const seen = new Int8Array(this.numIds).fill(inUse);
    const counts = { free: 0, held: 0 };
    for (let list = 0; list <= this.numSteps; list++) {
      const sentinel = this.numIds + list;
      let before = sentinel;
      for (let node = this.next[sentinel]!; node !== sentinel; node = this.next[node]!) {
        if (node >= this.numIds) throw new Error(`list ${list} runs into another list`);
        if (seen[node] !== inUse) throw new Error(`id ${node} is in two lists`);
        if (this.prev[node] !== before) throw new Error(`id ${node} has a wrong prev`);
        seen[node] = list;
        before = node;
        counts[list === freeList ? 'free' : 'held']++;
      }
      if (this.prev[sentinel] !== before) throw new Error(`list ${list} has a wrong tail`);
    }
    for (let id = 0; id < this.numIds; id++)
      if (seen[id] !== this.listOf[id]) throw new Error(`id ${id} is not in its list`);
    if (counts.free !== this.numFree) throw new Error('numFree is wrong');
    if (counts.held !== this.numHeld) throw new Error('numHeld is wrong');
  }

  private free(id: number): void {
    this.insert(id, freeList, this.freed(id));
    this.numFree++;
  }

  private insert(id: number, list: number, front: boolean): void {
    const sentinel = this.numIds + list;
    const after = front ? this.next[sentinel]! : sentinel;
    const before = this.prev[after]!;
    this.next[before] = id;
    this.prev[id] = before;
    this.next[id] = after;
    this.prev[after] = id;
    this.listOf[id] = list;
  }

  private unlink(id: number): void {
    const before = this.prev[id]!;
    const after = this.next[id]!;
    this.next[before] = after;
    this.prev[after] = before;
  }
}
