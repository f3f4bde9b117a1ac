(function () {
  "use strict";
  var root = document.documentElement;
  document.querySelector(".theme").addEventListener("click", function () {
    var dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  function hint() {
    document.querySelectorAll(".scroll").forEach(function (box) {
      box.toggleAttribute("data-clipped", box.scrollWidth > box.clientWidth + 1);
    });
  }
  addEventListener("resize", hint);
  document.addEventListener("toggle", hint, true);
  hint();
  function key(cell) {
    var value = cell.hasAttribute("data-key") ? cell.getAttribute("data-key") : cell.textContent.trim();
    if (value === "") { return null; }
    var number = Number(value);
    return isNaN(number) ? value.toLowerCase() : number;
  }
  function order(a, b) {
    if (a === null || b === null) { return a === b ? 0 : a === null ? 1 : -1; }
    if (typeof a === "number" && typeof b === "number") { return a - b; }
    return String(a).localeCompare(String(b));
  }
  document.querySelectorAll("table.sortable").forEach(function (table) {
    var heads = Array.prototype.slice.call(table.tHead.rows[0].cells);
    heads.forEach(function (head, column) {
      head.querySelector("button").addEventListener("click", function () {
        var rising = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach(function (other) { other.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", rising ? "ascending" : "descending");
        var body = table.tBodies[0];
        Array.prototype.slice.call(body.rows)
          .map(function (row) { return { row: row, key: key(row.cells[column]) }; })
          .sort(function (a, b) {
            // what is undefined stays last in both directions
            if (a.key === null || b.key === null) { return order(a.key, b.key); }
            return rising ? order(a.key, b.key) : order(b.key, a.key);
          })
          .forEach(function (item) { body.appendChild(item.row); });
      });
    });
  });
}());
