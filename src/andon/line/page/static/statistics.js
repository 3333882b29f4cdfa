// Counts, exact intervals and costs of scores at thresholds, as andon/thresholds/figures.py computes them on the server.

// Number of ascending values below t.
export function below(sorted, t) {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < t) low = middle + 1;
    else high = middle;
  }
  return low;
}

export function verdicts(sorted, accept, reject) {
  const passed = below(sorted, accept);
  const stopped = sorted.length - below(sorted, reject);
  return { passed, review: sorted.length - passed - stopped, stopped, n: sorted.length };
}

// Natural logarithm of the gamma function, x > 0 (Lanczos 1964, g = 7, n = 9).
const LANCZOS = [
  0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
  12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7,
];
function logGamma(x) {
  let sum = LANCZOS[0];
  for (let k = 1; k < LANCZOS.length; k += 1) sum += LANCZOS[k] / (x - 1 + k);
  const t = x + 6.5;
  return 0.5 * Math.log(2 * Math.PI) + (x - 0.5) * Math.log(t) - t + Math.log(sum);
}

// Continued fraction of the incomplete beta function (DLMF 8.17.22), by the method of Lentz.
function betaFraction(a, b, x) {
  const tiny = 1e-300;
  let c = 1;
  let d = 1 / (Math.abs(1 - ((a + b) * x) / (a + 1)) < tiny ? tiny : 1 - ((a + b) * x) / (a + 1));
  let found = d;
  for (let m = 1; m < 10000; m += 1) {
    const even = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
    const odd = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
    for (const term of [even, odd]) {
      d = 1 + term * d;
      c = 1 + term / c;
      d = 1 / (Math.abs(d) < tiny ? tiny : d);
      if (Math.abs(c) < tiny) c = tiny;
      found *= d * c;
    }
    if (Math.abs(d * c - 1) < 1e-15) break;
  }
  return found;
}

// Regularised incomplete beta function I_x(a, b).
export function beta(a, b, x) {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  const factor = Math.exp(
    logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log1p(-x),
  );
  if (x < (a + 1) / (a + b + 2)) return (factor * betaFraction(a, b, x)) / a;
  return 1 - (factor * betaFraction(b, a, 1 - x)) / b;
}

function betaInverse(a, b, share) {
  let low = 0;
  let high = 1;
  for (let k = 0; k < 60; k += 1) {
    const middle = (low + high) / 2;
    if (beta(a, b, middle) < share) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

// Exact 95 % interval of a rate (Clopper and Pearson 1934).
const intervals = new Map();
export function interval(count, n) {
  const key = `${count} ${n}`;
  if (!intervals.has(key)) {
    intervals.set(key, [
      count ? betaInverse(count, n - count + 1, 0.025) : 0,
      count < n ? betaInverse(count + 1, n - count, 0.975) : 1,
    ]);
  }
  return intervals.get(key);
}

// Fewest bad parts of which `misses` may pass for a share of at most `rate`, 95 % confidence; null above 10,000,000.
export function partsToClaim(rate, misses) {
  const claims = (n) => beta(misses + 1, n - misses, rate) >= 0.95;
  let low = misses;
  let high = 1e7;
  if (!claims(high)) return null;
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (claims(middle)) high = middle;
    else low = middle;
  }
  return high;
}

// Thresholds between neighbouring scores, ascending; the lowest score first, one above all last.
export function places(sorted) {
  const found = [];
  let before = null;
  for (const score of sorted) {
    if (score !== before) found.push(before === null ? score : (before + score) / 2);
    before = score;
  }
  if (before !== null) found.push(before + Math.max(1e-6, Math.abs(before) * 1e-6));
  return found;
}

export function cost(good, bad, accept, reject, [escape, stop]) {
  return (escape * below(bad, accept)) / bad.length + stop * (1 - below(good, reject) / good.length);
}
