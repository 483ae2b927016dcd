// What a run of the load gives, as figures and as lines of text.

/** Linear between the two nearest; NaN of nothing. */
export function percentile(values, fraction) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (sorted.length - 1) * fraction;
  const below = Math.floor(at);
  const [low, high] = [sorted[below] ?? NaN, sorted[Math.min(below + 1, sorted.length - 1)] ?? NaN];
  return low + (high - low) * (at - below);
}

/** Of { ms, results } from runLoad: rates a second, times in ms. */
export function summarize({ ms, results }) {
  const good = results.filter(({ error, outputTokens }) => error === null && outputTokens > 0);
  const sum = (field) => good.reduce((total, result) => total + result[field], 0);
  const ttft = good.map(({ sentMs, firstMs }) => firstMs - sentMs);
  const tpot = good
    .filter(({ outputTokens }) => outputTokens > 1)
    .map(({ firstMs, lastMs, outputTokens }) => (lastMs - firstMs) / (outputTokens - 1));
  return {
    requests: results.length,
    failed: results.length - good.length,
    outputTokens: sum('outputTokens'),
    requestRate: (good.length / ms) * 1000,
    outputRate: (sum('outputTokens') / ms) * 1000,
    totalRate: ((sum('outputTokens') + sum('promptTokens')) / ms) * 1000,
    ttftMs: percentile(ttft, 0.5),
    ttftP99Ms: percentile(ttft, 0.99),
    tpotMs: percentile(tpot, 0.5),
    tpotP99Ms: percentile(tpot, 0.99),
    firstError: results.find(({ error }) => error !== null)?.error ?? null,
  };
}

const columns = [
  ['streams', 'concurrency', 7, 0],
  ['round', 'round', 6, 0],
  ['tokens/s', 'outputRate', 9, 1],
  ['with prompt', 'totalRate', 12, 1],
  ['TTFT p50', 'ttftMs', 9, 1],
  ['p99 ms', 'ttftP99Ms', 9, 1],
  ['TPOT p50', 'tpotMs', 9, 2],
  ['p99 ms', 'tpotP99Ms', 9, 2],
  ['failed', 'failed', 7, 0],
];
const nameWidth = 20;

export const heading = () =>
  ['server'.padEnd(nameWidth), ...columns.map(([title, , width]) => title.padStart(width))].join(
    ' ',
  );

export const line = (row) =>
  [
    row.server.padEnd(nameWidth),
    ...columns.map(([, field, width, digits]) => row[field].toFixed(digits).padStart(width)),
  ].join(' ');

/** Median rates over the rounds; `ratio` (first server over second) is the rounds' own ratios' median. */
export function medians(rows, names, concurrencies) {
  return concurrencies.map((concurrency) => {
    const rates = names.map((name) =>
      rows
        .filter((row) => row.server === name && row.concurrency === concurrency)
        .map((row) => row.outputRate),
    );
    const servers = Object.fromEntries(names.map((name, i) => [name, percentile(rates[i], 0.5)]));
    const ratios = rates[0].map((rate, i) => rate / (rates[1]?.[i] ?? NaN));
    return { concurrency, servers, ratio: rates.length > 1 ? percentile(ratios, 0.5) : null };
  });
}

export function medianLine({ concurrency, servers, ratio }) {
  const rates = Object.entries(servers).map(([name, rate]) => `${name} ${rate.toFixed(1)}`);
  const suffix = ratio === null ? '' : `, ratio ${ratio.toFixed(2)}`;
  return `${concurrency} streams, median tokens/s: ${rates.join(', ')}${suffix}`;
}
