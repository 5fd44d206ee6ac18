#!/bin/sh
# Prints which Chromium there is, or fails: the one that CHROMIUM names, else the first of those that systems have.
for name in "${CHROMIUM:-}" chromium-headless-shell chromium chromium-browser google-chrome google-chrome-stable \
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" "/Applications/Chromium.app/Contents/MacOS/Chromium"; do
    [ -n "$name" ] && command -v "$name" && exit 0
done
exit 1
