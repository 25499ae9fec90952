'use strict';
// Every text of the data reaches the page through textContent or an attribute: no name in it becomes markup.
const data = JSON.parse(document.getElementById('data').textContent);
const at = (id) => document.getElementById(id);
const NS = 'http://www.w3.org/2000/svg';

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in node && typeof value !== 'string') node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}
function draw(tag, attributes, text) {
  const node = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}
function number(value) {
  if (value === null || value === undefined) return '–';
  if (Number.isInteger(value) && Math.abs(value) > 1) return value.toLocaleString('en-US');
  return value.toFixed(3);
}
const percent = (share) => (share > 0 && share < 0.005 ? '<1%' : `${Math.round(100 * share)}%`);
const swatch = (index) => make('i', { class: 'dot', style: `background:${data.colours[index]}` });

// header and figures
at('title').textContent = data.title;
at('kind').textContent = data.texts.headline;
const without = data.counts.images_without_predictions;
const [amount, unitOfAmount] = data.texts.amount;
const size = `${number(data.counts[amount])} ${unitOfAmount} of ${data.classes.length} classes`;
at('lead').textContent = `Measured on ${number(data.counts.images)} images with ${size}.`
  + (without ? ` ${number(without)} of the images have no prediction; they count as wholly missed.` : '');
for (const { label, hint, value } of data.headlines) {
  const fill = make('i', { style: `width:${100 * (value || 0)}%` });
  at('figures').append(make('div', { class: 'figure' },
    make('span', { class: 'label' }, label), make('b', {}, number(value)),
    make('div', { class: 'bar', 'aria-hidden': 'true' }, fill), make('p', {}, hint)));
}

// tables
function table({ title, columns, rows }, many) {
  const body = make('tbody');
  const head = make('tr');
  const best = {};
  const fill = (sorted) => body.replaceChildren(...sorted.map((row) => make('tr', {}, ...columns.map(
    ({ key, minor }, i) => make('td', { class: (minor ? 'minor ' : '') + (row[key] === null ? 'none' : '') },
      i === 0 ? swatch(data.classes.indexOf(row.name)) : null,
      i === 0 ? row[key] : key === 'share' ? percent(row[key]) : key === 'pixels' || Number.isInteger(row[key])
        && ['objects', 'detections'].includes(key) ? row[key].toLocaleString('en-US') : number(row[key]))))));
  columns.forEach(({ key, label, hint, minor }) => {
    const button = make('button', { type: 'button', title: hint }, label);
    const cell = make('th', { scope: 'col', class: minor ? 'minor' : '' }, button);
    button.addEventListener('click', () => {
      best[key] = best[key] === 'descending' || (key === 'name' && !best[key]) ? 'ascending' : 'descending';
      const sign = best[key] === 'ascending' ? 1 : -1;
      head.querySelectorAll('th').forEach((other) => other.removeAttribute('aria-sort'));
      cell.setAttribute('aria-sort', best[key]);
      fill([...rows].sort((a, b) => {
        if (a[key] === null || b[key] === null) return (a[key] === null) - (b[key] === null);
        return sign * (typeof a[key] === 'string' ? a[key].localeCompare(b[key]) : a[key] - b[key]);
      }));
    });
    head.append(cell);
  });
  fill(rows);
  return make('div', { class: 'block' }, many ? make('h3', {}, title) : null,
    make('table', {}, make('thead', {}, head), body));
}
data.tables.forEach((each) => at('tables').append(table(each, data.tables.length > 1)));

// charts
const HUES = ['#2a7fb0', '#d07a28', '#3f9a5f', '#b4548f', '#8a6bc1', '#8c8c3a', '#c2524a', '#4aa3a3', '#7a7f87', '#a9794b'];
function ticks(low, high, count) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((m) => m >= raw);
  const found = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-6; v += step) found.push(v);
  return found;
}
function short(value) {
  if (value === 0) return '0';
  if (Math.abs(value) >= 1000) return `${+(value / 1000).toPrecision(3)}k`;
  return Math.abs(value) < 0.001 ? value.toExponential(0) : `${+value.toPrecision(3)}`;
}
function chart(place, { title, series, xName, yRange, xRange }) {
  const block = make('div', { class: 'chart' }, make('h3', {}, title));
  const readout = make('div', { class: 'readout' });
  place.append(block);
  const paint = () => {
    const width = Math.max(260, block.clientWidth), height = 230, left = 46, right = 10, top = 8, bottom = 38;
    const xs = series.flatMap((s) => s.points.map((p) => p[0])), ys = series.flatMap((s) => s.points.map((p) => p[1]));
    const [x0, x1] = xRange || [Math.min(...xs), Math.max(...xs)];
    const [y0, y1] = yRange || [Math.min(0, ...ys), Math.max(...ys) || 1];
    const px = (x) => left + ((x - x0) / (x1 - x0 || 1)) * (width - left - right);
    const py = (y) => top + (1 - (y - y0) / (y1 - y0 || 1)) * (height - top - bottom);
    const svg = draw('svg', { viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': title });
    for (const y of ticks(y0, y1, 5)) {
      svg.append(draw('line', { class: 'grid', x1: left, x2: width - right, y1: py(y), y2: py(y) }),
        draw('text', { x: left - 8, y: py(y) + 4, 'text-anchor': 'end' }, short(y)));
    }
    for (const x of ticks(x0, x1, width / 90)) {
      svg.append(draw('text', { x: px(x), y: height - bottom + 18, 'text-anchor': 'middle' }, short(x)));
    }
    svg.append(draw('text', { x: width - right, y: height - 4, 'text-anchor': 'end' }, xName));
    for (const { points, colour, strong } of series) {
      const path = points.map(([x, y], i) => `${i ? 'L' : 'M'}${px(x).toFixed(1)} ${py(y).toFixed(1)}`).join('');
      svg.append(draw('path', { class: 'series', d: path, stroke: colour, 'stroke-width': strong ? 3 : 1.8 }));
      if (points.length < 3) for (const [x, y] of points) svg.append(draw('circle', { cx: px(x), cy: py(y), r: 4, fill: colour }));
    }
    const hair = draw('line', { class: 'hair', y1: top, y2: height - bottom, visibility: 'hidden' });
    svg.append(hair);
    const show = (x) => {
      hair.setAttribute('visibility', x === null ? 'hidden' : 'visible');
      if (x !== null) { hair.setAttribute('x1', px(x)); hair.setAttribute('x2', px(x)); }
      const at_ = x === null ? null : make('span', {}, `${xName} ${short(x)}`);
      readout.replaceChildren(...[at_].filter(Boolean), ...series.map(({ name, points, colour }) => {
        const near = x === null ? points[points.length - 1]
          : points.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));
        return make('span', {}, make('i', { style: `background:${colour}` }), x === null && xRange ? name : `${name} ${short(near[1])}`);
      }));
    };
    svg.addEventListener('pointermove', (event) => {
      const box = svg.getBoundingClientRect();
      const x = x0 + ((event.clientX - box.left) * (width / box.width) - left) / (width - left - right) * (x1 - x0);
      show(Math.min(x1, Math.max(x0, x)));
    });
    svg.addEventListener('pointerleave', () => show(null));
    show(null);
    block.replaceChildren(block.firstChild, svg, readout);
  };
  paint();
  let painted = block.clientWidth;
  addEventListener('resize', () => { if (block.clientWidth !== painted) { painted = block.clientWidth; paint(); } });
}
for (const [kind, curves] of Object.entries(data.curves)) {
  const names = Object.keys(curves);
  if (!names.length) continue;
  const grid = curves[names[0]].map((_, i) => i / (curves[names[0]].length - 1));
  const mean = grid.map((x, i) => [x, names.reduce((sum, name) => sum + curves[name][i], 0) / names.length]);
  const series = names.length > 12 ? [] : names.map((name) => ({
    name, colour: data.colours[data.classes.indexOf(name)], points: curves[name].map((y, i) => [grid[i], y]) }));
  if (names.length > 1) series.push({ name: `mean of ${names.length} classes`, colour: 'currentColor', strong: true, points: mean });
  chart(at('precision-charts'), { title: `${kind}: precision over recall`, series, xName: 'recall', yRange: [0, 1], xRange: [0, 1] });
}
for (const [title, group] of Object.entries(data.history)) {
  if (Object.values(group).every((points) => points.length < 2)) continue; // one evaluation is no curve
  const series = Object.entries(group).slice(0, 14).map(([name, points], i) => ({
    name, points, colour: name === 'loss' ? 'currentColor' : HUES[i % HUES.length], strong: name === 'loss' }));
  chart(at('training-charts'), { title, series, xName: 'iteration', yRange: title === 'metrics' ? [0, 1] : undefined });
}

// confusion
function confusion() {
  const counts = data.confusion;
  const { unit, remainder } = data.texts;
  const columns = [...data.classes, remainder];
  const kept = columns.map((_, j) => j < data.classes.length || counts.some((row) => row[j]));
  const rows = counts.map((row, i) => ({ name: columns[i], row, total: row.reduce((a, b) => a + b, 0), i })).filter((r) => r.total);
  at('confusion-note').textContent = data.texts.matrix;
  const tint = (i, j, share) => `background:rgba(var(--${i === j ? 'heat' : 'wrong'}),${(0.04 + 0.76 * share).toFixed(3)})`;
  const room = at('matrix').clientWidth;
  if (columns.length * 36 + Math.min(190, room / 3) <= room) {
    const head = make('tr', {}, make('td', {}, 'true ↓\ntaken for →'), ...columns.filter((_, j) => kept[j]).map((name) => make('th', { scope: 'col' }, name)));
    const body = rows.map(({ name, row, total, i }) => make('tr', {}, make('th', { scope: 'row' }, name), ...row.map((n, j) => (
      kept[j] ? make('td', { style: tint(i, j, n / total), title: `${name} as ${columns[j]}: ${n.toLocaleString('en-US')} ${unit}` },
        n ? percent(n / total) : '') : null))));
    at('matrix').append(make('table', { class: 'matrix' }, make('thead', {}, head), make('tbody', {}, ...body)));
  } else {
    const side = 520, cell = side / columns.length;
    const svg = draw('svg', { viewBox: `0 0 ${side} ${side}`, role: 'img', 'aria-label': 'Confusion matrix' });
    for (const { name, row, total, i } of rows) {
      row.forEach((n, j) => {
        if (!n) return;
        const square = draw('rect', { x: j * cell, y: i * cell, width: cell, height: cell, style: tint(i, j, n / total).replace('background', 'fill') });
        square.append(draw('title', {}, `${name} as ${columns[j]}: ${n.toLocaleString('en-US')} ${unit} (${percent(n / total)})`));
        svg.append(square);
      });
    }
    svg.append(draw('rect', { width: side, height: side, fill: 'none', stroke: 'currentColor', 'stroke-opacity': 0.2 }));
    at('matrix').append(svg);
  }
  const pairs = rows.flatMap(({ name, row, total, i }) => row.map((n, j) => ({ name, as: columns[j], n, share: n / total, i, j })))
    .filter((p) => p.n && p.i !== p.j && p.i < data.classes.length && p.j < data.classes.length)
    .sort((a, b) => b.n - a.n).slice(0, 8);
  at('confusions').append(make('h3', {}, 'Most frequent confusions'));
  if (!pairs.length) { at('confusions').append(make('p', { class: 'note' }, 'No class is taken for another.')); return; }
  at('confusions').append(make('table', {}, make('thead', {}, make('tr', {}, make('th', {}, 'true'), make('th', {}, 'taken for'), make('th', {}, unit))),
    make('tbody', {}, ...pairs.map((p) => make('tr', {}, make('td', {}, p.name), make('td', {}, p.as),
      make('td', {}, `${p.n.toLocaleString('en-US')} (${percent(p.share)})`))))));
}
confusion();

// the run
for (const [name, value] of Object.entries(data.facts)) at('facts').append(make('dt', {}, name), make('dd', {}, value));
data.notes.forEach((line) => at('notes').append(make('li', {}, line)));
const present = { precision: Object.keys(data.curves).length, training: Object.keys(data.history).length,
  run: Object.keys(data.facts).length + data.notes.length, gallery: data.gallery.items.length };
document.querySelectorAll('main > section').forEach((section) => {
  if (present[section.id] === 0) { section.hidden = true; return; }
  const heading = section.querySelector('h2');
  if (heading) at('nav').append(make('a', { href: `#${section.id}` }, heading.textContent));
});

// gallery
const RANKS = { all: 'All', best: 'Best', worst: 'Worst', confused: 'Most confused' };
const VIEWS = { both: 'Both', truth: 'Ground truth', prediction: 'Prediction', photo: 'Image' };
const state = { rank: 'all', label: -1, view: innerWidth < 640 ? 'prediction' : 'both', index: 0 };
const items = data.gallery.items;
function shown() {
  const kept = items.filter((item) => (state.rank === 'all' || item.tags.includes(state.rank))
    && (state.label < 0 || item.classes.includes(state.label)));
  if (state.rank === 'worst') kept.sort((a, b) => a.value - b.value);
  if (state.rank === 'confused') kept.sort((a, b) => a.confused - b.confused);
  return kept;
}
function buttons(place, names, key) {
  for (const [value, label] of Object.entries(names)) {
    const button = make('button', { type: 'button', 'data-value': value }, label);
    button.addEventListener('click', () => { state[key] = value; if (key === 'rank') state.index = 0; refresh(); });
    place.append(button);
  }
}
function picture(item, layer) {
  const box = make('div', { class: item.width < 300 ? 'picture small' : 'picture' });
  // no larger than the screen is high, nor enlarged more than threefold
  box.style.aspectRatio = `${item.width} / ${item.height}`;
  box.style.maxWidth = `min(${3 * item.width}px, ${(70 * item.width) / item.height}vh)`;
  const layers = layer ? ['photo', layer] : ['photo'];
  layers.forEach((name) => box.append(make('img', { src: item[name], alt: name === 'photo' ? item.name : '' })));
  return box;
}
function stage(list) {
  const item = list[state.index];
  at('position').textContent = list.length ? `${state.index + 1} of ${list.length}` : '0 of 0';
  at('previous').disabled = state.index <= 0;
  at('next').disabled = state.index >= list.length - 1;
  at('panes').className = state.view === 'both' ? 'panes both' : 'panes';
  at('caption').replaceChildren();
  if (!item) { at('panes').replaceChildren(make('p', { class: 'empty' }, 'No image fits these filters.')); return; }
  at('caption').append(make('b', {}, item.name), make('span', {}, ` — ${item.said}`));
  if (item.missing) { at('panes').replaceChildren(make('p', { class: 'empty' }, 'The image file cannot be read.')); return; }
  const views = state.view === 'both' ? ['truth', 'prediction'] : [state.view];
  at('panes').replaceChildren(...views.map((view) => make('figure', { class: 'pane' },
    make('figcaption', {}, VIEWS[view]), picture(item, view === 'photo' ? '' : view))));
}
function refresh(focus) {
  const list = shown();
  state.index = Math.max(0, Math.min(state.index, list.length - 1));
  for (const [id, key] of [['ranks', 'rank'], ['views', 'view']]) {
    for (const button of at(id).children) button.setAttribute('aria-pressed', String(button.dataset.value === state[key]));
  }
  stage(list);
  const names = list.map((item) => item.name).join('\n');
  if (names !== listed) thumbs(list);
  listed = names;
  [...at('thumbs').children].forEach((thumb, i) => thumb.setAttribute('aria-current', String(i === state.index)));
  const current = at('thumbs').children[state.index];
  if (!current) return;
  if (focus) current.focus({ preventScroll: true });
  const low = current.offsetTop - at('thumbs').offsetTop;
  const hidden = low < at('thumbs').scrollTop || low + current.offsetHeight > at('thumbs').scrollTop + at('thumbs').clientHeight;
  if (hidden) at('thumbs').scrollTop = low - 8;
}
let listed = null;
function thumbs(list) {
  at('thumbs').replaceChildren(...list.map((item, i) => {
    const button = make('button', { type: 'button', class: 'thumb', 'aria-label': `${item.name}, ${number(item.value)}` },
      item.missing ? null : make('img', { src: item.photo, alt: '' }), make('span', {}, item.value.toFixed(2)));
    button.addEventListener('click', () => { state.index = i; refresh(true); });
    return button;
  }));
  at('thumbs').scrollTop = 0;
}
function step(by, focus) { state.index += by; refresh(focus); }
buttons(at('ranks'), RANKS, 'rank');
buttons(at('views'), VIEWS, 'view');
at('class-filter').append(make('option', { value: '-1' }, 'all'), ...data.classes.map((name, i) => make('option', { value: String(i) }, name)));
at('class-filter').addEventListener('change', (event) => { state.label = Number(event.target.value); state.index = 0; refresh(); });
at('previous').addEventListener('click', () => step(-1));
at('next').addEventListener('click', () => step(1));
at('gallery').addEventListener('keydown', (event) => {
  const thumb = event.target.classList.contains('thumb');
  if (event.target.tagName === 'SELECT') return;
  if (event.key === 'ArrowRight' || event.key === 'ArrowLeft') {
    event.preventDefault();
    step(event.key === 'ArrowRight' ? 1 : -1, thumb);
  } else if (event.key === ' ' && (thumb || event.target.id === 'stage')) {
    event.preventDefault();
    state.view = state.view === 'prediction' ? 'truth' : 'prediction';
    refresh(thumb);
  }
});
let startX = null;
at('panes').addEventListener('touchstart', (event) => { startX = event.touches[0].clientX; }, { passive: true });
at('panes').addEventListener('touchend', (event) => {
  const moved = event.changedTouches[0].clientX - startX;
  if (Math.abs(moved) > 60) step(moved < 0 ? 1 : -1);
});
const cut = items.length < data.gallery.total ? `${items.length} of ${number(data.gallery.total)} images are in this page. ` : '';
at('gallery-note').textContent = `${cut}${data.texts.value} Arrow keys go through the images, the space bar switches between ground truth and prediction.`;
data.classes.slice(0, 24).forEach((name, i) => at('legend').append(make('li', {}, make('i', { style: `background:${data.colours[i]}` }), name)));
const [style, meaning] = data.texts.mark;
at('legend').append(make('li', {}, make('i', { class: style }), meaning));
refresh();
