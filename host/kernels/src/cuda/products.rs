//! Matrix products on tensor cores, by cuBLASLt. The library's heuristic is asked once for each
//! kind of product; its first answer is kept, so that a product has the same bits every time. Sums
//! that are cut over the inner axis are ruled out.

use std::collections::HashMap;
use std::ffi::c_void;
use std::mem::size_of;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use cudarc::cublaslt::{result, sys};

use super::driver::{Fault, Matrix, MatrixProduct, Operands};

/// The library.
#[derive(Debug)]
pub(super) struct Products {
    handle: sys::cublasLtHandle_t,
    kinds: Mutex<HashMap<Kind, Prepared>>,
}

// SAFETY: the library's calls may come from any thread (cuBLAS documentation, 2.1.3 and 3.1).
unsafe impl Send for Products {}
// SAFETY: as above; what is kept is behind a lock.
unsafe impl Sync for Products {}

/// All that decides about an algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kind {
    sizes: [u64; 4],
    operands: Operands,
    matrices: [Side; 3],
    has_bias: bool,
    relu: bool,
    workspace_bytes: u64,
}

/// A matrix but for its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Side {
    leading: u64,
    batch_stride: u64,
    transposed: bool,
    alignment: u32,
}

impl Side {
    fn of(matrix: &Matrix) -> Side {
        Side {
            leading: matrix.leading,
            batch_stride: matrix.batch_stride,
            transposed: matrix.transposed,
            // The largest power of two, up to 256, that the address is a multiple of.
            alignment: 1 << matrix.address.trailing_zeros().min(8),
        }
    }
}

/// Descriptions and an algorithm.
#[derive(Clone, Copy, Debug)]
struct Prepared {
    description: sys::cublasLtMatmulDesc_t,
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
}

fn refused(what: &'static str) -> impl Fn(result::CublasError) -> Fault {
    move |error| Fault::Refused {
        what: format!("cuBLASLt refused {what}: {error}"),
    }
}

impl Products {
    /// Opens the library. The device's context is current.
    pub(super) fn open() -> Result<Products, Fault> {
        let handle = result::create_handle().map_err(refused("a handle"))?;
        Ok(Products {
            handle,
            kinds: Mutex::default(),
        })
    }

    /// Queues a product.
    ///
    /// # Safety
    /// As [`Driver::multiply`](super::driver::Driver::multiply); the device's context is current.
    pub(super) unsafe fn multiply(
        &self,
        stream: sys::cudaStream_t,
        of: &MatrixProduct,
    ) -> Result<(), Fault> {
        let kind = Kind {
            sizes: [of.rows, of.columns, of.inner, of.batch],
            operands: of.operands,
            matrices: [&of.a, &of.b, &of.d].map(Side::of),
            has_bias: of.bias != 0,
            relu: of.relu,
            workspace_bytes: of.workspace_bytes,
        };
        // The lock is held while the product is queued: the bias is part of the description.
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let prepared = match kinds.get(&kind) {
            Some(prepared) => *prepared,
            None => {
                let prepared = self.prepare(&kind)?;
                kinds.insert(kind, prepared);
                prepared
            }
        };
        let (one, zero) = (1.0_f32, 0.0_f32);
        let [a, b, d] = prepared.layouts;
        if kind.has_bias {
            describe(
                prepared.description,
                sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                &of.bias,
            )
            .map_err(refused("a bias"))?;
        }
        // SAFETY: the descriptions are alive, and say what the caller promised of the addresses.
        unsafe {
            result::matmul(
                self.handle,
                prepared.description,
                ptr::from_ref(&one).cast(),
                ptr::from_ref(&zero).cast(),
                of.a.address as *const c_void,
                a,
                of.b.address as *const c_void,
                b,
                of.d.address as *const c_void,
                d,
                of.d.address as *mut c_void,
                d,
                &prepared.algorithm,
                of.workspace as *mut c_void,
                of.workspace_bytes as usize,
                stream,
            )
        }
        .map_err(refused("a product"))
    }

    fn prepare(&self, kind: &Kind) -> Result<Prepared, Fault> {
        use sys::cublasLtMatmulDescAttributes_t as Of;
        let (compute, scalar) = match kind.operands {
            Operands::Tf32 => (
                sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
                sys::cudaDataType::CUDA_R_32F,
            ),
            Operands::Bf16 => (
                sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                sys::cudaDataType::CUDA_R_16BF,
            ),
        };
        let [rows, columns, inner, batch] = kind.sizes;
        let [a, b, d] = kind.matrices;
        let float = sys::cudaDataType::CUDA_R_32F;
        let description =
            result::create_matmul_desc(compute, float).map_err(refused("a description"))?;
        // `cublasOperation_t`: 0 as it is stored, 1 transposed.
        let turned = |side: Side| i32::from(side.transposed);
        let epilogue = match (kind.has_bias, kind.relu) {
            (false, false) => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_DEFAULT,
            (false, true) => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_RELU,
            (true, false) => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS,
            (true, true) => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_RELU_BIAS,
        } as u32;
        let describe_all = || -> Result<(), result::CublasError> {
            describe(description, Of::CUBLASLT_MATMUL_DESC_TRANSA, &turned(a))?;
            describe(description, Of::CUBLASLT_MATMUL_DESC_TRANSB, &turned(b))?;
            describe(description, Of::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
            if kind.has_bias {
                let attribute = Of::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE;
                describe(description, attribute, &(float as i32))?;
            }
            Ok(())
        };
        describe_all().map_err(refused("a description"))?;
        let layouts = [
            layout(scalar, [rows, inner], a, batch)?,
            layout(scalar, [inner, columns], b, batch)?,
            layout(float, [rows, columns], d, batch)?,
        ];
        let algorithm = self.algorithm(kind, description, layouts)?;
        Ok(Prepared {
            description,
            layouts,
            algorithm,
        })
    }

    /// The library's first answer.
    fn algorithm(
        &self,
        kind: &Kind,
        description: sys::cublasLtMatmulDesc_t,
        [a, b, d]: [sys::cublasLtMatrixLayout_t; 3],
    ) -> Result<sys::cublasLtMatmulAlgo_t, Fault> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Wish;
        let wish = result::create_matmul_pref().map_err(refused("a wish"))?;
        let [a_side, b_side, d_side] = kind.matrices;
        let asked = [
            (
                Wish::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_NONE as u32,
            ),
            (
                Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                a_side.alignment,
            ),
            (
                Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                b_side.alignment,
            ),
            (
                Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                d_side.alignment,
            ),
            (
                Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
                d_side.alignment,
            ),
        ];
        let answer = (|| {
            // SAFETY: the wish is alive, the attributes have these types, and the descriptions
            // are those of `prepare`.
            unsafe {
                result::set_matmul_pref_attribute(
                    wish,
                    Wish::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                    ptr::from_ref(&kind.workspace_bytes).cast(),
                    size_of::<u64>(),
                )?;
                for (attribute, value) in &asked {
                    result::set_matmul_pref_attribute(
                        wish,
                        *attribute,
                        ptr::from_ref(value).cast(),
                        size_of::<u32>(),
                    )?;
                }
                result::get_matmul_algo_heuristic(self.handle, description, a, b, d, d, wish)
            }
        })();
        // SAFETY: made above, and not used after this.
        let _ = unsafe { result::destroy_matmul_pref(wish) };
        Ok(answer.map_err(refused("an algorithm"))?.algo)
    }
}

/// Sets an attribute that has this type.
fn describe<T>(
    description: sys::cublasLtMatmulDesc_t,
    attribute: sys::cublasLtMatmulDescAttributes_t,
    value: &T,
) -> Result<(), result::CublasError> {
    // SAFETY: callers are in this file: their descriptions are alive, their types those that
    // cuBLASLt documents.
    unsafe {
        result::set_matmul_desc_attribute(
            description,
            attribute,
            ptr::from_ref(value).cast(),
            size_of::<T>(),
        )
    }
}

/// A [rows, columns] matrix, or its transpose where that is what is stored.
fn layout(
    scalar: sys::cudaDataType,
    [rows, columns]: [u64; 2],
    side: Side,
    batch: u64,
) -> Result<sys::cublasLtMatrixLayout_t, Fault> {
    use sys::cublasLtMatrixLayoutAttribute_t as Of;
    let (rows, columns) = if side.transposed {
        (columns, rows)
    } else {
        (rows, columns)
    };
    let layout = result::create_matrix_layout(scalar, rows, columns, side.leading as i64)
        .map_err(refused("a layout"))?;
    if batch > 1 {
        let (count, stride) = (batch as i32, side.batch_stride as i64);
        // SAFETY: the layout was made above; the attributes have these types.
        unsafe {
            result::set_matrix_layout_attribute(
                layout,
                Of::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT,
                ptr::from_ref(&count).cast(),
                size_of::<i32>(),
            )
            .map_err(refused("a batch"))?;
            result::set_matrix_layout_attribute(
                layout,
                Of::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                ptr::from_ref(&stride).cast(),
                size_of::<i64>(),
            )
            .map_err(refused("a batch"))?;
        }
    }
    Ok(layout)
}

impl Drop for Products {
    fn drop(&mut self) {
        let kinds = self.kinds.get_mut().unwrap_or_else(PoisonError::into_inner);
        for prepared in kinds.values() {
            // SAFETY: made by `prepare`, and nothing uses them after this.
            unsafe {
                let _ = result::destroy_matmul_desc(prepared.description);
                for layout in prepared.layouts {
                    let _ = result::destroy_matrix_layout(layout);
                }
            }
        }
        // SAFETY: made by `open`, and nothing uses it after this.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}
