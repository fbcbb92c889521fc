// Adam on all parameters in one launch.

// A parameter: its values are numbered from `begin` on among those of all parameters.
struct Parameter {
    unsigned long long begin;
    float *w;
    const float *gradient;
    float *m, *v;
};

// A thread a value of all parameters: w ← w − η · m̂ / (√v̂ + ε)
extern "C" __global__ void adam(u32 n, u32 count, const Parameter *parameters, float rate, float beta1, float rest1, float beta2,
                                float rest2, float epsilon, float correct1, float correct2) {
    u32 i = index();
    if (i >= n) return;
    u32 low = 0, high = count; // the last parameter that begins at or before i is in [low, high)
    while (high - low > 1) {
        u32 middle = (low + high) / 2;
        if (parameters[middle].begin <= i) low = middle;
        else high = middle;
    }
    const Parameter p = parameters[low];
    u32 k = i - (u32)p.begin;
    float g = p.gradient[k];
    float mean = p.m[k] = beta1 * p.m[k] + rest1 * g;
    float square = p.v[k] = beta2 * p.v[k] + rest2 * g * g;
    p.w[k] -= rate * (mean * correct1) / (sqrtf(square * correct2) + epsilon);
}
