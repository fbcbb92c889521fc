// cuBLAS: column-major products of f32, summed in f32.
#include "device.h"
#include <vector>

namespace {

const int BAD = 7;               // CUBLAS_STATUS_INVALID_VALUE
const int FULL = 68, FAST = 77;  // CUBLAS_COMPUTE_32F and CUBLAS_COMPUTE_32F_FAST_TF32

struct Matrix {
    const float *values;
    size_t rows, columns, stride;
    bool transposed; // the columns of the operand are its rows
};

// The operand's rows, one after the other, or its columns.
std::vector<float> lines(const Matrix &m, bool of_rows, bool rounded) {
    std::vector<float> out(m.rows * m.columns);
    for (size_t r = 0; r < m.rows; r++)
        for (size_t c = 0; c < m.columns; c++) {
            float v = m.values[m.transposed ? r * m.stride + c : c * m.stride + r];
            out[of_rows ? r * m.columns + c : c * m.rows + r] = rounded ? tf32(v) : v;
        }
    return out;
}

void need_matrix(const char *call, const char *what, const Matrix &m) {
    size_t columns = m.transposed ? m.rows : m.columns, rows = m.transposed ? m.columns : m.rows;
    need_array(call, what, m.values, ((columns - 1) * m.stride + rows) * sizeof(float));
}

} // namespace

extern "C" {
int cublasCreate_v2(Library **handle) { *handle = new Library; return OK; }
int cublasDestroy_v2(Library *handle) { delete handle; return OK; }
int cublasSetStream_v2(Library *handle, Handle stream) {
    std::lock_guard<std::recursive_mutex> guard(device);
    given(__func__, stream);
    handle->stream = stream;
    return OK;
}
int cublasGemmEx(Library *handle, int first, int second, int m, int n, int k, const float *alpha, const float *a, int a_type,
                 int lda, const float *b, int b_type, int ldb, const float *beta, float *c, int c_type, int ldc, int compute, int) {
    CALL;
    Stream *stream = stream_of(__func__, handle);
    if (a_type || b_type || c_type || m < 1 || n < 1 || k < 1) return BAD; // only CUDA_R_32F here
    if (lda < (first ? k : m) || ldb < (second ? n : k) || ldc < m || (compute != FULL && compute != FAST)) return BAD;
    Matrix left = {a, (size_t)m, (size_t)k, (size_t)lda, first != 0}, right = {b, (size_t)k, (size_t)n, (size_t)ldb, second != 0};
    need_matrix(__func__, "a", left);
    need_matrix(__func__, "b", right);
    need_matrix(__func__, "c", {c, (size_t)m, (size_t)n, (size_t)ldc, false});
    enqueue(stream, [=, by = *alpha, keep = *beta] {
        std::vector<float> rows = lines(left, true, compute == FAST), columns = lines(right, false, compute == FAST);
        for (int j = 0; j < n; j++)
            for (int i = 0; i < m; i++) {
                float *to = &c[(size_t)j * ldc + i];
                *to = by * dot(&rows[(size_t)i * k], &columns[(size_t)j * k], k) + (keep ? keep * *to : 0.0f);
            }
    });
    return OK;
}
}
