// The process's own figures, under the names that every Prometheus client uses.
import { Counter, Gauge, type Registry } from 'prom-client';

export function addProcessMetrics(registry: Registry): void {
  const figures: Readonly<Record<string, readonly [string, () => number]>> = {
    process_resident_memory_bytes: ['Resident memory.', () => process.memoryUsage.rss()],
    process_start_time_seconds: [
      'Start, in Unix seconds.',
      () => Math.round(Date.now() / 1000 - process.uptime()),
    ],
  };
  for (const [name, [help, read]] of Object.entries(figures)) {
    new Gauge({
      name,
      help,
      registers: [registry],
      collect() {
        this.set(read());
      },
    });
  }
  new Counter({
    name: 'process_cpu_seconds_total',
    help: 'CPU time, user and system.',
    registers: [registry],
    collect() {
      this.reset();
      this.inc(cpuSeconds());
    },
  });
}

function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}
