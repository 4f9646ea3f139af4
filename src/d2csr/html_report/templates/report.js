"use strict";

const root = document.documentElement;

/* Storage fails in private windows and, for files, in some browsers. The page then follows the system. */
function storedTheme() {
  try {
    return localStorage.getItem("d2csr-theme");
  } catch {
    return null;
  }
}

function storeTheme(theme) {
  try {
    localStorage.setItem("d2csr-theme", theme);
  } catch {
    /* it lasts until the page is closed */
  }
}

function setTheme(theme) {
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
}

function toggleTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  setTheme((root.dataset.theme ?? system) === "dark" ? "light" : "dark");
  storeTheme(root.dataset.theme);
}

function setUpComparison(comparison) {
  const stage = comparison.querySelector(".stage");
  const viewport = comparison.querySelector(".viewport");
  const zoom = comparison.querySelector("[data-zoom]");
  const border = comparison.querySelector("input[type=range]");

  function show(side) {
    const option = comparison.querySelector(`select[data-side=${side}]`).selectedOptions[0];
    const image = comparison.querySelector(`img[data-side=${side}]`);
    const caption = comparison.querySelector(`[data-caption=${side}]`);
    image.src = option.value;
    image.alt = option.text;
    image.classList.toggle("nearest", "lr" in option.dataset);
    const psnr = document.createElement("span");
    psnr.textContent = option.dataset.psnr;
    caption.replaceChildren(option.text, " ", psnr);
    caption.href = option.dataset.full;
  }

  function moveBorder(percent) {
    border.value = percent;
    stage.style.setProperty("--border", `${border.value}%`);
  }

  function enlarge() {
    stage.style.setProperty("--zoom", zoom.value || 1);
    viewport.classList.toggle("zoomed", zoom.value !== "");
    viewport.classList.toggle("pixels", Number(zoom.value) > 1);
  }

  function showPart(left, top, side) {
    const x = left + side / 2;
    const y = top + side / 2;
    zoom.value = "4";
    enlarge();
    moveBorder((100 * x) / Number(comparison.style.getPropertyValue("--w")));
    viewport.scrollTo(4 * x - viewport.clientWidth / 2, 4 * y - viewport.clientHeight / 2);
    comparison.scrollIntoView({ block: "start" });
    border.focus({ preventScroll: true });
  }

  for (const select of comparison.querySelectorAll("select[data-side]")) {
    select.addEventListener("change", () => show(select.dataset.side));
    show(select.dataset.side);
  }
  zoom.addEventListener("change", enlarge);
  border.addEventListener("input", () => moveBorder(border.value));
  for (const button of comparison.closest("article").querySelectorAll("[data-show]")) {
    button.addEventListener("click", () => showPart(...button.dataset.show.split(",").map(Number)));
  }
}

/* Python's inf is not JavaScript's. */
const toNumber = (text) => (text.endsWith("inf") ? Number(text.replace("inf", "Infinity")) : Number(text));

function compareCells(a, b, isText, direction) {
  if (a === "" || b === "") return (a === "") - (b === ""); /* unknown scores come last */
  if (isText) return direction * a.localeCompare(b, undefined, { numeric: true });
  return a === b ? 0 : direction * (toNumber(a) < toNumber(b) ? -1 : 1);
}

function setUpTable(table) {
  const heads = [...table.querySelectorAll("th[aria-sort]")];
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    button.addEventListener("click", () => {
      const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      const key = (row) => row.cells[column].dataset.sort;
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => compareCells(key(a), key(b), "text" in button.dataset, direction));
      table.tBodies[0].append(...rows);
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
    });
  });
}

function setUpFilter(field, found) {
  field.addEventListener("input", () => {
    const text = field.value.toLowerCase();
    const hide = (element, name) => (element.hidden = !name.toLowerCase().includes(text));
    for (const row of document.querySelectorAll(".sortable tbody tr")) hide(row, row.cells[0].dataset.sort);
    const images = [...document.querySelectorAll("article.image")];
    for (const image of images) hide(image, image.querySelector("h3").textContent);
    found.textContent = text ? `${images.filter((image) => !image.hidden).length} found` : "";
  });
}

setTheme(storedTheme());
document.addEventListener("DOMContentLoaded", () => {
  document.getElementById("theme").addEventListener("click", toggleTheme);
  document.querySelectorAll(".compare").forEach(setUpComparison);
  document.querySelectorAll("table.sortable").forEach(setUpTable);
  setUpFilter(document.getElementById("filter"), document.getElementById("found"));
});
