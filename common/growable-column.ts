// A typed array that grows by doubling and is emptied without giving its memory back: what a
// message's columns are built in, and what waits for being sent.

export type NumberArray = Uint8Array | Int32Array | Uint32Array | Float32Array | Float64Array;

export class GrowableColumn<T extends NumberArray> {
  private data: T;
  private count = 0;
  private readonly make: new (length: number) => T;

  constructor(make: new (length: number) => T, capacity = 16) {
    this.make = make;
    this.data = new make(capacity);
  }

  get length(): number {
    return this.count;
  }

  push(value: number): void {
    if (this.count === this.data.length) this.reserve(1);
    this.data[this.count++] = value;
  }

  /** In place of the element that came last. */
  setLast(value: number): void {
    this.data[this.count - 1] = value;
  }

  /** Appends source[from .. to). */
  append(source: ArrayLike<number>, from = 0, to = source.length): void {
    const n = to - from;
    if (this.count + n > this.data.length) this.reserve(n);
    const { data, count } = this;
    if (n === source.length) data.set(source, count);
    else for (let i = 0; i < n; i++) data[count + i] = source[from + i]!;
    this.count += n;
  }

  /** Appends the first n elements of another column; cheaper than by a view of it. */
  appendFrom(source: GrowableColumn<T>, n: number = source.count): void {
    if (n > 0) this.append(source.data, 0, n);
  }

  /** The elements, as a view that is good until the next change. */
  view(): T {
    return this.data.subarray(0, this.count) as T;
  }

  at(index: number): number {
    return this.data[index]!;
  }

  truncate(count: number): void {
    this.count = Math.min(this.count, count);
  }

  /** Drops the first n elements. */
  shift(n: number): void {
    this.data.copyWithin(0, n, this.count);
    this.count -= n;
  }

  clear(): void {
    this.count = 0;
  }

  /** Gives the memory back as well. */
  release(): void {
    this.count = 0;
    this.data = new this.make(0);
  }

  private reserve(n: number): void {
    const grown = new this.make(Math.max(16, this.data.length * 2, this.count + n));
    grown.set(this.data.subarray(0, this.count));
    this.data = grown;
  }
}
