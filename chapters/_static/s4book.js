/* A formula a little too wide for its column is set smaller, down to 64 %; a wider one scrolls inside itself. */
(function () {
  function fit() {
    document.querySelectorAll('.bd-article mjx-container[display="true"]').forEach(function (box) {
      if (box.dataset.size === undefined) box.dataset.size = box.style.fontSize;
      box.style.fontSize = box.dataset.size;
      var full = parseFloat(getComputedStyle(box).fontSize), ratio = box.clientWidth / box.scrollWidth;
      if (ratio >= 0.64 && ratio < 1) box.style.fontSize = full * 0.99 * ratio + 'px';
    });
  }
  window.addEventListener('load', function () {
    if (!window.MathJax || !MathJax.startup) return;
    MathJax.startup.promise.then(function () {
      fit();
      var width = window.innerWidth, waiting;
      window.addEventListener('resize', function () {
        if (window.innerWidth === width) return;
        width = window.innerWidth;
        clearTimeout(waiting);
        waiting = setTimeout(fit, 150);
      });
      document.querySelectorAll('details').forEach(function (d) { d.addEventListener('toggle', fit); });
    });
  });
})();
