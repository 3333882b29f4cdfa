// One sound for each state that needs a person, off until somebody switches it on.

const TONES = {
  REVIEW: [[660, 0.15]],
  STOPPED: [[880, 0.25], [587, 0.25], [880, 0.25]],
  FAULT: [[440, 0.4], [440, 0.4]],
  OFFLINE: [[330, 0.5]],
};

export class Sounds {
  constructor() {
    this.context = null;
    this.last = null;
  }

  toggle() {
    if (this.context) {
      this.context.close();
      this.context = null;
    } else {
      this.context = new AudioContext();
      this.play([[660, 0.1]]);
    }
    return this.context !== null;
  }

  state(name) {
    if (name !== this.last && this.context && TONES[name]) this.play(TONES[name]);
    this.last = name;
  }

  play(tones) {
    let start = this.context.currentTime;
    for (const [pitch, seconds] of tones) {
      const tone = this.context.createOscillator();
      const level = this.context.createGain();
      tone.frequency.value = pitch;
      level.gain.value = 0.2;
      tone.connect(level).connect(this.context.destination);
      tone.start(start);
      tone.stop(start + seconds);
      start += seconds + 0.05;
    }
  }
}
