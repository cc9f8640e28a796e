/* Work for the processor and nothing else, to compare how fast compiled code runs: `compute WORK [ROUNDS]` with `sha256`,
 * `nbody` or `sieve`. Prints what came out, so that none of it can be left out. */

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* SHA-256 (FIPS 180-4) of its own result, again and again. */

static uint32_t constants[64];

static uint32_t rotated(uint32_t x, int n) { return x >> n | x << (32 - n); }

/* The first 32 bits of the fraction of a prime's cube root. */
static void make_constants(void) {
    int found = 0;
    for (int n = 2; found < 64; n++) {
        int prime = 1;
        for (int d = 2; d * d <= n; d++) prime &= n % d != 0;
        if (!prime) continue;
        double root = cbrt(n);
        constants[found++] = (uint32_t)((root - floor(root)) * 4294967296.0);
    }
}

static void compress(uint32_t state[8], const uint32_t block[16]) {
    uint32_t w[64], s[8];
    memcpy(w, block, 64);
    for (int n = 16; n < 64; n++) {
        uint32_t a = rotated(w[n - 15], 7) ^ rotated(w[n - 15], 18) ^ w[n - 15] >> 3;
        uint32_t b = rotated(w[n - 2], 17) ^ rotated(w[n - 2], 19) ^ w[n - 2] >> 10;
        w[n] = w[n - 16] + a + w[n - 7] + b;
    }
    memcpy(s, state, 32);
    for (int n = 0; n < 64; n++) {
        uint32_t one = rotated(s[4], 6) ^ rotated(s[4], 11) ^ rotated(s[4], 25);
        uint32_t choice = (s[4] & s[5]) ^ (~s[4] & s[6]);
        uint32_t first = s[7] + one + choice + constants[n] + w[n];
        uint32_t zero = rotated(s[0], 2) ^ rotated(s[0], 13) ^ rotated(s[0], 22);
        uint32_t second = zero + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 28);
        s[4] += first;
        s[0] = first + second;
    }
    for (int n = 0; n < 8; n++) state[n] += s[n];
}

static void sha256(long rounds) {
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    /* A block of 32 bytes, its end, and its length in bits. At first it is the digest of 32 zeros. */
    uint32_t state[8], block[16] = {[8] = 0x80000000, [15] = 256};
    make_constants();
    for (long n = 0; n < rounds; n++) {
        memcpy(state, start, sizeof state);
        compress(state, block);
        memcpy(block, state, sizeof state);
    }
    for (int n = 0; n < 8; n++) printf("%08x", block[n]);
    printf("\n");
}

/* Bodies that attract each other, and the energy that stays. */

#define BODIES 5

static struct body {
    double at[3], speed[3], mass;
} bodies[BODIES];

static double energy(void) {
    double sum = 0;
    for (int i = 0; i < BODIES; i++) {
        for (int k = 0; k < 3; k++) sum += 0.5 * bodies[i].mass * bodies[i].speed[k] * bodies[i].speed[k];
        for (int j = i + 1; j < BODIES; j++) {
            double square = 0;
            for (int k = 0; k < 3; k++) {
                double d = bodies[i].at[k] - bodies[j].at[k];
                square += d * d;
            }
            sum -= bodies[i].mass * bodies[j].mass / sqrt(square);
        }
    }
    return sum;
}

static void nbody(long rounds) {
    const double step = 0.001;
    /* A sun, and planets on nearly round orbits, each further out and slower. */
    bodies[0].mass = 40;
    for (int n = 1; n < BODIES; n++) {
        bodies[n].mass = 0.01 * n;
        bodies[n].at[0] = 4.0 * n;
        bodies[n].at[2] = 0.1 * n;
        bodies[n].speed[1] = sqrt(bodies[0].mass / bodies[n].at[0]);
    }
    double before = energy();
    for (long round = 0; round < rounds; round++) {
        for (int i = 0; i < BODIES; i++) {
            for (int j = i + 1; j < BODIES; j++) {
                double d[3], square = 0;
                for (int k = 0; k < 3; k++) {
                    d[k] = bodies[i].at[k] - bodies[j].at[k];
                    square += d[k] * d[k];
                }
                double force = step / (square * sqrt(square));
                for (int k = 0; k < 3; k++) {
                    bodies[i].speed[k] -= d[k] * bodies[j].mass * force;
                    bodies[j].speed[k] += d[k] * bodies[i].mass * force;
                }
            }
        }
        for (int i = 0; i < BODIES; i++)
            for (int k = 0; k < 3; k++) bodies[i].at[k] += step * bodies[i].speed[k];
    }
    double after = energy();
    printf("%s %.6f\n", fabs(after - before) < 0.01 * fabs(before) ? "kept" : "lost", bodies[1].at[0]);
}

/* The primes below four million. */
static void sieve(long rounds) {
    enum { LIMIT = 4000000 };
    unsigned char *composite = malloc(LIMIT);
    long count = 0;
    if (!composite) abort();
    for (long round = 0; round < rounds; round++) {
        memset(composite, 0, LIMIT);
        for (long n = 2; n < LIMIT; n++) {
            if (composite[n]) continue;
            count++;
            for (long m = 2 * n; m < LIMIT; m += n) composite[m] = 1;
        }
    }
    printf("%ld\n", count / rounds);
    free(composite);
}

int main(int argc, char **argv) {
    const char *work = argc > 1 ? argv[1] : "";
    long rounds = argc > 2 ? atol(argv[2]) : 0;
    if (!strcmp(work, "sha256")) {
        sha256(rounds ? rounds : 3000000);
    } else if (!strcmp(work, "nbody")) {
        nbody(rounds ? rounds : 15000000);
    } else if (!strcmp(work, "sieve")) {
        sieve(rounds ? rounds : 60);
    } else {
        fprintf(stderr, "usage: compute sha256|nbody|sieve [ROUNDS]\n");
        return 2;
    }
    return 0;
}
