// A browser starts no Worker on a page that is opened as a file. There the search, which asks for one, runs in a hidden
// frame: a frame without an address has the page's origin, and may load the scripts of the folder.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {  // the name that the search looks for
    constructor(address) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.srcdoc = "";
      this.inside = new Promise((resolve) => {
        frame.onload = () => {
          const inside = frame.contentWindow;
          const load = (source) => new Promise((done, failed) => {
            const script = inside.document.createElement("script");
            Object.assign(script, {src: new URL(source, location), onload: done, onerror: failed});
            inside.document.head.append(script);
          });
          inside.importScripts = async (...sources) => { for (const source of sources) await load(source); };
          inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", {data}));
          resolve(load(address).then(() => inside));
        };
      });
      document.body.append(frame);
    }
    postMessage(data) {
      this.inside.then((inside) => inside.dispatchEvent(new MessageEvent("message", {data})));
    }
  };
  window.Worker = window.IFrameWorker;
}
