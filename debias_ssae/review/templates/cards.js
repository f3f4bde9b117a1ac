(function () {
  "use strict";
  var form = document.querySelector("form.tools");
  if (!form) { return; }
  var pieces = JSON.parse(form.dataset.pieces), ticks = JSON.parse(form.dataset.ticks);
  var cards = Array.prototype.slice.call(document.querySelectorAll("article.latent"));
  var find = form.elements.filter, only = form.elements.only;
  function box(card) { return card.querySelector("input[data-tick]"); }
  function ticked() { return cards.filter(function (card) { return box(card).checked; }); }
  function count() {
    var chosen = ticked(), latents = 0, share = 0;
    cards.forEach(function (card) { card.classList.toggle("on", box(card).checked); });
    chosen.forEach(function (card) { latents += Number(card.dataset.latents); share += Number(card.dataset.share); });
    form.querySelector("output").textContent = chosen.length === 0 ? "Nothing is ticked." :
      chosen.length + (chosen.length === 1 ? " card" : " cards") + " ticked: " + latents +
      (latents === 1 ? " latent" : " latents") + (share ? ", " + (100 * share).toFixed(1) + "%" : "");
  }
  function show() {
    var wanted = find.value.trim().toLowerCase(), shown = 0;
    cards.forEach(function (card) {
      var match = card.dataset.words.indexOf(wanted) >= 0 && (!only.checked || box(card).checked);
      card.hidden = !match;
      shown += match ? 1 : 0;
    });
    document.querySelectorAll("details.group").forEach(function (group) {
      if (wanted && group.querySelector("article.latent:not([hidden])")) { group.open = true; }
    });
    document.querySelector(".none").hidden = shown > 0;
  }
  function choices() {
    return pieces.map(function (piece, i) {
      if (i === ticks.length) { return piece; }
      var id = ticks[i];
      return piece + (typeof id === "boolean" ? id : document.querySelector('input[data-tick="' + id + '"]').checked);
    }).join("");
  }
  function visible() { return cards.filter(function (card) { return card.offsetParent !== null; }); }
  function move(step) {
    var all = visible(), at = all.indexOf(document.activeElement.closest("article.latent"));
    var next = all[at < 0 ? 0 : Math.min(Math.max(at + step, 0), all.length - 1)];
    if (next) { next.tabIndex = -1; next.focus(); }
  }
  form.addEventListener("submit", function (event) {
    event.preventDefault();
    var link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([choices()], { type: "application/yaml" }));
    link.download = form.dataset.file;
    link.click();
    setTimeout(function () { URL.revokeObjectURL(link.href); }, 1000);
  });
  find.addEventListener("input", show);
  only.addEventListener("change", show);
  find.addEventListener("keydown", function (event) {
    if (event.key === "Enter") { event.preventDefault(); move(1); }
    if (event.key === "Escape") { find.value = ""; show(); find.blur(); }
  });
  cards.forEach(function (card) { box(card).addEventListener("change", function () { count(); if (only.checked) { show(); } }); });
  document.addEventListener("keydown", function (event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target === find) { return; }
    var card = document.activeElement.closest("article.latent");
    if (event.key === "/") { event.preventDefault(); find.focus(); }
    if (event.key === "j") { move(1); }
    if (event.key === "k") { move(-1); }
    if (event.key === "x" && card) { box(card).checked = !box(card).checked; box(card).dispatchEvent(new Event("change")); }
  });
  if (location.protocol === "file:") {
    form.querySelector("[data-folder]").textContent = decodeURIComponent(location.pathname).replace(/[^\/]*$/, "");
  }
  count();
}());
